"""Networks of tests: hosts that are network namespaces, at a switch that can lose them."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid

import pytest


def ip(*arguments: str) -> None:
    """Run ``ip``."""
    subprocess.run(["ip", *arguments], check=True, timeout=10, capture_output=True)


def require_namespaces() -> None:
    """Skip the test where this process may not make network namespaces."""
    if refusal := may_make_namespaces():
        pytest.skip(refusal)


def may_make_namespaces() -> str:
    """Return why this process may not make network namespaces, or an empty string."""
    if not shutil.which("ip"):
        return "needs the command ip (iproute2)"
    name = f"nc-{uuid.uuid4().hex[:8]}"
    made = subprocess.run(
        ["ip", "netns", "add", name], check=False, capture_output=True, timeout=10
    )
    if made.returncode:
        return f"needs the right to make network namespaces: {made.stderr.decode().strip()}"
    ip("netns", "delete", name)
    return ""


class Host:
    """A network namespace. Processes that are started with `prefix` are on it."""

    def __init__(self) -> None:
        self.name = f"nc-{uuid.uuid4().hex[:8]}"
        self.devices: list[str] = []
        ip("netns", "add", self.name)
        self.prefix = ["ip", "netns", "exec", self.name]
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        """Run ``ip`` there."""
        ip("-netns", self.name, *arguments)

    def add_device(self, name: str, address: str) -> None:
        """Give it an interface of its own, which leads nowhere."""
        self.ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-end")
        self.ip("address", "add", address, "dev", name)
        for each in (name, f"{name}-end"):
            self.ip("link", "set", each, "up")

    def slow(self, rate: str) -> None:
        """Let no more leave it than `rate`, as ``tc`` writes it: ``"40mbit"``."""
        for device in self.devices:
            subprocess.run(
                f"tc -netns {self.name} qdisc add dev {device} root tbf rate {rate} burst 64k"
                " latency 50ms".split(),
                check=True,
                timeout=10,
                capture_output=True,
            )

    def learn(self, other: Host) -> None:
        """Have it know another host's link address for good, as if a router stood between."""
        shown = subprocess.run(
            ["ip", "-json", "-netns", other.name, "address", "show", "dev", other.devices[0]],
            check=True,
            timeout=10,
            capture_output=True,
        )
        (device,) = json.loads(shown.stdout)
        address = device["addr_info"][0]["local"]
        self.ip(
            *("neighbor", "replace", address, "lladdr", device["address"]),
            *("dev", self.devices[0], "nud", "permanent"),
        )

    def delete(self) -> None:
        """Remove it, and the cables that end there."""
        ip("netns", "delete", self.name)


class Network:
    """Hosts at a switch, which is a bridge in a namespace of its own.

    Parameters
    ----------
    count : int
        How many hosts.
    """

    def __init__(self, count: int) -> None:
        self.switch = Host()
        self.hosts: list[Host] = []
        try:
            self.switch.ip("link", "add", "bridge", "type", "bridge")
            self.switch.ip("link", "set", "bridge", "up")
            for number in range(1, count + 1):
                host = Host()
                self.hosts.append(host)
                self._join(host, number)
        except BaseException:
            self.delete()
            raise

    def _join(self, host: Host, number: int) -> None:
        port, device = f"port{number}", f"net{number}"
        ip(
            *f"-netns {self.switch.name} link add {port} type veth".split(),
            *f"peer name {device} netns {host.name}".split(),
        )
        host.devices.append(device)
        self.switch.ip("link", "set", port, "master", "bridge", "up")
        host.ip("address", "add", f"{self._address(host)}/24", "dev", device)
        host.ip("link", "set", device, "up")

    def cut(self, host: Host) -> None:
        """Have the switch lose what goes to and from a host, which learns nothing of it."""
        self.switch.ip("link", "set", self._port(host), "nomaster")

    def heal(self, host: Host) -> None:
        """Undo `cut`."""
        self.switch.ip("link", "set", self._port(host), "master", "bridge")

    def unplug(self, host: Host) -> None:
        """Take a host's cable out: it sees that it has no link."""
        self.switch.ip("link", "set", self._port(host), "down")

    def plug(self, host: Host) -> None:
        """Undo `unplug`."""
        self.switch.ip("link", "set", self._port(host), "up")

    def reset(self, host: Host, other: Host) -> None:
        """End the TCP connections between two hosts, which learn of it."""
        there = ["dst", self._address(other)]
        for options in (["-K"], ["-Htn"]):
            done = subprocess.run(
                [*host.prefix, "ss", *options, "state", "established", *there],
                check=True,
                timeout=10,
                capture_output=True,
            )
        if done.stdout:
            pytest.skip("this kernel resets no connections (CONFIG_INET_DIAG_DESTROY)")

    def delete(self) -> None:
        """Remove everything."""
        for host in (self.switch, *self.hosts):
            host.delete()

    def _address(self, host: Host) -> str:
        return f"10.77.0.{self.hosts.index(host) + 1}"

    def _port(self, host: Host) -> str:
        return f"port{self.hosts.index(host) + 1}"

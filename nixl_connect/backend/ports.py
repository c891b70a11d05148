"""Refuses an agent for which UCX would find no TCP port: it would look for one for ever.

An agent listens on a port of each network interface that UCX uses. Where the user has named a range
of ports, UCX tries ports of it at random until one is free.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Mapping

from nixl_connect.errors import BackendError

# Names by which UCX_TLS includes TCP, or excludes it.
_TCP = frozenset({"all", "tcp"})
_SIOCGIFADDR = 0x8915
# What says that a port is somebody's.
_TAKEN = frozenset({errno.EADDRINUSE, errno.EACCES})
_IPV6 = "/proc/net/if_inet6"

_Address = tuple[socket.AddressFamily, tuple[object, ...]]


def require_ports(count: int, what: str, settings: Mapping[bytes, bytes]) -> None:
    """Raise BackendError unless so many TCP ports are free wherever UCX would listen.

    Parameters
    ----------
    count : int
        How many, on each interface.
    what : str
        What needs them, for the message.
    settings : mapping of bytes to bytes
        UCX's settings, without those of the environment.
    """
    if not _selects(_setting("TLS", settings, "all"), _TCP):
        return
    ports = _ports(_setting("TCP_PORT_RANGE", settings, "0"))
    if ports is None:
        return  # UCX refuses it
    devices = _setting("NET_DEVICES", settings, "all")
    for index, name in socket.if_nameindex():
        address = _address(index, name)
        if address is None or not _selects(devices, {"all", name}):
            continue
        free = _free(address, ports, count)
        if free < count:
            where = f"of {ports[0]} to {ports[-1]} (UCX_TCP_PORT_RANGE)" if ports[0] else "at all"
            raise BackendError(
                f"{what} takes {count} TCP ports on the interface {name}, and {free} {where} are "
                "free: widen the range, or close what has them"
            )


def _setting(name: str, settings: Mapping[bytes, bytes], default: str) -> str:
    """Return a setting of UCX, of which the environment's goes first."""
    given = settings.get(name.encode(), default.encode()).decode(errors="replace")
    return os.environ.get(f"UCX_{name}", given)


def _selects(names: str, wanted: Iterable[str]) -> bool:
    """Whether a list of names includes one, as UCX reads it; a ^ before the first excludes them."""
    listed = {name.strip() for name in names.removeprefix("^").split(",")}
    return listed.isdisjoint(wanted) == names.startswith("^")


def _ports(text: str) -> range | None:
    """Return the ports of a range as UCX has it; None if it is none. 0 is any port."""
    first, _, last = text.partition("-")
    with contextlib.suppress(ValueError):
        ports = range(int(first), int(last or first) + 1)
        if ports and ports[0] >= 0 and ports[-1] < 1 << 16:
            return ports
    return None


def _address(index: int, name: str) -> _Address | None:
    """Return where UCX listens on an interface: its IPv4 address, else one of IPv6."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("256s", name.encode()[:15])
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, request)
            return socket.AF_INET, (socket.inet_ntoa(answer[20:24]),)
    with contextlib.suppress(OSError), open(_IPV6, encoding="utf-8") as addresses:
        for line in addresses:
            digits, _, _, _, _, device = line.split()
            if device == name:
                told = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
                return socket.AF_INET6, (told, 0, index)
    return None


def _free(address: _Address, ports: range, most: int) -> int:
    """Return how many ports are free there, at most `most`, by taking them for a moment."""
    family, (host, *rest) = address
    taken: list[socket.socket] = []
    try:
        # Any port is another one each time.
        for port in ports if ports[0] else [0] * most:
            if len(taken) == most:
                break
            probe = socket.socket(family, socket.SOCK_STREAM)
            try:
                # As UCX's sockets, it may not take what is listened on.
                probe.bind((host, port, *rest))
            except OSError as error:
                probe.close()
                if error.errno not in _TAKEN:
                    return most  # the address is on its way in or out: nothing is known
            else:
                taken.append(probe)
        return len(taken)
    finally:
        for probe in taken:
            probe.close()

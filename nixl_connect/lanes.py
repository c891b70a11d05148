"""Lanes: agents beside the connection's own, for long copies between processes of one host.

Each has a thread, registrations and peers of its own. What it transfers moves beside all else: two
lanes copy two halves of a large transfer at once, and no other operation waits for the agent that
copies.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

from nixl_connect._native import lane as native_lane
from nixl_connect._native.agent import Agent
from nixl_connect.peers import Peers
from nixl_connect.registrations import Registrations
from nixl_connect.startup import start_agent

# How many share a transfer. Two copy faster than one, but a copy is a long system call, and event
# loops are to find a processor that is free.
COUNT = 2 if len(os.sched_getaffinity(0)) >= 4 else 1
# Names by which UCX_TLS includes the transport that copies between processes, or excludes it.
_COPYING = frozenset({"all", "sm", "shm", "cma"})
# Smaller transfers do not gain.
LEAST_BYTES = 4 * 1024 * 1024
# More regions of a peer than this are not loaded once for each lane.
FEW = 64


class Lane:
    """One lane.

    Parameters
    ----------
    agent : Agent
        The lane's own.
    native : native Lane
        Its thread.
    peers : Peers
        Those of the agent.
    """

    def __init__(self, agent: Agent, native: native_lane.Lane, peers: Peers) -> None:
        self.native = native
        self.registrations = Registrations(agent, pins=False)  # of no network device
        self.peers = peers
        self._agent = agent

    def stop(self) -> None:
        """End the thread, after the reactor."""
        self.native.stop()

    def close(self) -> None:
        """Destroy the agent, after the connection's."""
        self._agent.close()


class Lanes:
    """The lanes of one engine, opened when they are first needed.

    Parameters
    ----------
    name : str
        The connection's.
    plugins : mapping of bytes to mapping of bytes to bytes
        The connection's transports, with their options.
    make : callable
        Makes a lane of its agent.
    """

    def __init__(
        self,
        name: str,
        plugins: Mapping[bytes, Mapping[bytes, bytes]],
        make: Callable[[Agent], Lane],
    ) -> None:
        self._name = name
        self._plugins = _local(plugins)
        self._make = make
        self._lock = threading.Lock()
        self.all: list[Lane] = []
        """Those that are open."""

    @property
    def are_open(self) -> bool:
        """Whether `open` would return at once."""
        return len(self.all) == COUNT

    @property
    def exist(self) -> bool:
        """Whether there is a transport for them: UCX, if it may copy between processes."""
        return bool(self._plugins)

    def open(self) -> list[Lane]:
        """Return the lanes."""
        with self._lock:
            while len(self.all) < COUNT:
                agent = start_agent(f"{self._name}/lane-{len(self.all) + 1}", self._plugins)
                self.all.append(self._make(agent))
            return self.all


def _local(
    plugins: Mapping[bytes, Mapping[bytes, bytes]],
) -> dict[bytes, dict[bytes, bytes]]:
    """Return the transports of a lane, with their options; none where UCX may not copy."""
    parameters = plugins.get(b"UCX")
    if parameters is None:
        return {}
    settings = parameters.get(b"engine_config", b"")
    given = dict(item.split(b"=", 1) for item in settings.split(b",") if b"=" in item)
    transports = os.environ.get("UCX_TLS") or given.get(b"TLS", b"all").decode()
    named = {name.strip() for name in transports.removeprefix("^").split(",")}
    if named.isdisjoint(_COPYING) != transports.startswith("^"):
        return {}
    # To this host alone: network devices would only register memory for nothing.
    given[b"NET_DEVICES"] = b"lo"
    return {b"UCX": {**parameters, b"engine_config": b",".join(map(b"=".join, given.items()))}}

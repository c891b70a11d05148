"""Lanes: agents beside the connection's own, for long copies between processes of one host.

Each has a thread, registrations and peers of its own. What it transfers moves beside all else: two
lanes copy two halves of a large transfer at once, and no other operation waits for the agent that
copies.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping

from nixl_connect._native import lane as native_lane
from nixl_connect._native import redirect
from nixl_connect._native.agent import Agent, AgentClosedError
from nixl_connect._native.registry import Registry
from nixl_connect.backend.agents import start_agents
from nixl_connect.backend.ucx import settings_of, with_settings
from nixl_connect.errors import BackendError
from nixl_connect.peers.peers import Peers
from nixl_connect.peers.registrations import registry_of

logger: logging.Logger = logging.getLogger(__name__)

# How many share a transfer, if their threads give way to others: see `copying`.
COUNT = min(2, len(os.sched_getaffinity(0)))
# Names by which UCX_TLS includes the transport that copies between processes, or excludes it.
_COPYING = frozenset({"all", "sm", "shm", "cma"})
# Smaller transfers do not gain.
LEAST_BYTES = 4 * 1024 * 1024
# Nor do those of small pieces, on average (bytes), which UCX does not copy but ask the peer for.
LEAST_PIECE = 8 * 1024
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
        self.registry: Registry = registry_of(agent, pins=False)  # of no network device
        self.peers = peers
        self._agent = agent

    @property
    def is_busy(self) -> bool:
        """Whether a call to the agent may wait for what it has been given."""
        return self._agent.is_busy

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
        # Reentrant: a signal handler may begin a large transfer in the middle of it.
        self._lock = threading.RLock()
        self._opening = False
        self._stopped = False
        self.all: list[Lane] = []
        """Those that are open."""

    @property
    def exist(self) -> bool:
        """Whether there is a transport for them: UCX, if it may copy between processes."""
        return bool(self._plugins)

    def open(self) -> list[Lane]:
        """Return the lanes: none where they cannot be opened, and from then on.

        Nor for a signal handler that interrupts this.

        Raises
        ------
        AgentClosedError
            They have been stopped.
        """
        with self._lock:
            if self._stopped:
                raise AgentClosedError
            if not self.all and self.exist and not self._opening:
                self._opening = True
                try:
                    self._open()
                finally:
                    self._opening = False
            return self.all

    def _open(self) -> None:
        """Start them all, or none. Lock held."""
        made: list[Lane] = []
        agents: list[Agent] = []
        count = 1 if redirect.copies_refused() else COUNT
        names = [f"{self._name}.lane{number}" for number in range(1, count + 1)]
        try:
            agents = start_agents(names, self._plugins)
            made.extend(map(self._make, agents))
        except (BackendError, MemoryError) as error:
            self._plugins = {}
            _close(made)
            for agent in agents[len(made) :]:
                agent.close()
            text = str(error)
            logger.warning("%s: large transfers hold up others: %s", self._name, text)
        else:
            self.all = made

    def stop(self, *, abandon: bool) -> list[Lane]:
        """End the threads, after the reactor; return the lanes, whose agents are still open.

        Parameters
        ----------
        abandon : bool
            Leave what is in flight as it is: the lanes may never be closed.
        """
        with self._lock:
            self._stopped = True
            for lane in self.all:
                lane.native.stop(abandon)
            return self.all


def _close(lanes: list[Lane]) -> None:
    for lane in lanes:
        lane.native.stop(False)
        lane.close()


def _local(
    plugins: Mapping[bytes, Mapping[bytes, bytes]],
) -> dict[bytes, dict[bytes, bytes]]:
    """Return the transports of a lane, with their options; none where UCX may not copy."""
    parameters = plugins.get(b"UCX")
    if parameters is None:
        return {}
    settings = settings_of(parameters)
    transports = os.environ.get("UCX_TLS") or settings.get(b"TLS", b"all").decode()
    named = {name.strip() for name in transports.removeprefix("^").split(",")}
    if named.isdisjoint(_COPYING) != transports.startswith("^"):
        return {}
    # To this host alone: network devices would only register memory for nothing.
    settings[b"NET_DEVICES"] = b"lo"
    return {b"UCX": with_settings(parameters, settings)}

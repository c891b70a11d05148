"""One NIXL agent and all that lives with it, from its start to its orderly end.

The engine is what a connection stands on: it owns the agent, the completion thread, the
registrations, the peers, and the keeper of what operations hold, and says in which order they end.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from nixl_connect._native.agent import Agent, AgentClosedError, keep_forever
from nixl_connect._native.capi import NativeError
from nixl_connect._native.envelope import Envelope
from nixl_connect._native.hold import Hold
from nixl_connect._native.operation import Operation
from nixl_connect._native.packing import Regions
from nixl_connect._native.reactor import Reactor
from nixl_connect._native.registry import RefusedError, Registry
from nixl_connect._native.text import describe
from nixl_connect.backend import library
from nixl_connect.backend.agents import describe_agent, require_agents, start_agents
from nixl_connect.backend.streams import occupy
from nixl_connect.engine.keeper import Keeper
from nixl_connect.engine.kept import Endable, Kept
from nixl_connect.engine.loops import Loops
from nixl_connect.engine.options import Options
from nixl_connect.engine.starter import Starter
from nixl_connect.errors import (
    BackendError,
    ClosedError,
    NixlConnectError,
    StateError,
)
from nixl_connect.peers.identity import identity_of
from nixl_connect.peers.lanes import Lane, Lanes
from nixl_connect.peers.messenger import Messenger
from nixl_connect.peers.peers import Peers
from nixl_connect.peers.registrations import Row, refusal, registry_of
from nixl_connect.peers.scout import Scout
from nixl_connect.permit import Permit

logger: logging.Logger = logging.getLogger(__name__)

# Seconds that transfers in flight have when the interpreter ends.
_EXIT_DRAIN = 0.5

_engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()


def engines() -> list[Engine]:
    """Return those of this process that have been started and not dropped."""
    # Not `values()`: other threads may start some meanwhile.
    found = (reference() for reference in _engines.valuerefs())
    return [engine for engine in found if engine is not None]


class _Endable(Protocol):
    """A prepared transfer."""

    def _end_with_connector(self) -> None:
        """Let go of what is prepared, when the connector closes."""


class _Usable:
    """Refuses work after a fork or the end, also where that comes in the middle of it."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.proxy(engine)

    def __enter__(self) -> None:
        engine = self._engine
        engine.collect()
        engine.refuse_after_fork()
        if engine.closed:
            raise ClosedError(f"the connector of {engine.name!r} is closed")

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, AgentClosedError):
            raise ClosedError(f"the connector of {self._engine.name!r} is closed") from None
        if isinstance(error, NativeError):
            raise BackendError(f"NIXL failed: {error}") from None


class Engine:
    """One agent with its transports started.

    Parameters
    ----------
    name : str
        The agent's name.
    options : Options
        Those of the connector.

    Raises
    ------
    LibraryError
        NIXL's library cannot be loaded.
    BackendError
        NIXL cannot start the agent or a transport.
    """

    def __init__(self, name: str, options: Options) -> None:
        occupy()  # first: libraries open something of their own when they are loaded
        self.library: library.Library = library.load()
        self.name = name
        self.options = options
        # Two agents; UCX's thread, the completion thread, the reaper, and two that start an agent.
        require_agents(2, 5, "opening a connector", options.plugins)
        # Nobody learns the messenger's name but those whom it tells that their bytes are there.
        self._agent, self._messenger = start_agents([name, f"{name}.messenger"], options.plugins)
        try:
            self._set_up(name, options)
        except BaseException:
            self._undo()
            raise

    def _set_up(self, name: str, options: Options) -> None:
        """Make all that lives with the agent."""
        connections, described = describe_agent(self._agent, self.library)
        self._head = connections[: described.sections_at]
        no_sections = connections[described.sections_at :]
        identity = identity_of(name, described.connections)
        try:
            self._reactor = Reactor(
                self._agent,
                self._messenger,
                identity,
                options.progress_interval,
                options.peer_silence,
            )
        except OSError as error:
            raise BackendError(f"{name!r} cannot be opened: {error}") from None
        self.registry: Registry = registry_of(self._agent)
        self.peers: Peers = Peers(
            self._agent,
            Messenger(
                self._messenger,
                self._reactor.introduced,
                no_sections,
                Scout(name, options.plugins, no_sections),
            ),
            self._reactor.is_near,
            limit=options.max_peer_regions,
            own=described.connections,
            refresh=self._reactor.refresh,
        )
        self._kept = Kept()
        self.keeper: Keeper = Keeper(
            self._reactor,
            self.registry,
            self.peers,
            options.quarantine,
            look=self._kept.look,
            close=self.close,
        )
        self._lanes = Lanes(name, options.plugins, self._lane)
        self._loops = Loops(self._reactor.look, self._reactor.hear, self.keeper.collect)
        self._usable = _Usable(self)
        self.starter: Starter = Starter(
            self._reactor,
            self._agent,
            self.registry,
            self.peers,
            self.keeper,
            lanes=self._lanes,
            options=options,
            usable=self._usable,
            head=self._head,
        )
        self._prepared: weakref.WeakSet[_Endable] = weakref.WeakSet()
        self._prepared_lock = threading.RLock()
        # Reentrant: a signal handler may close what is being closed.
        self._close_lock = threading.RLock()
        self._shutting_down = False
        self.closed: bool = False
        self.forked = False
        self._shut_down = False
        _engines[id(self)] = self
        logger.debug("%s: open, on NIXL %s", name, self.library.version)

    def _undo(self) -> None:
        """End what `_set_up` has made, when it fails."""
        made = vars(self)
        if "_reactor" in made:
            self._reactor.stop(0.0, True)
        if "keeper" in made:
            self.keeper.stop()
            self.keeper.join()
        self._agent.close()
        self._messenger.close()

    def _lane(self, agent: Agent) -> Lane:
        """Make a lane of its agent."""
        limit = self.options.max_peer_regions
        peers = Peers(agent, None, self._reactor.is_near, limit=limit, own={})
        lane = Lane(agent, self._reactor.lane(agent), peers)
        self.keeper.add_lane(lane)
        return lane

    # --- operations -------------------------------------------------------------------------

    def register(self, row: Row, mem_type: int, owner: object) -> Hold:
        """Register one region, or share a registration that holds it, until the hold ends."""
        with self._usable:
            hold = Hold(self.registry)
            try:
                hold.acquire(Regions([row]), mem_type, [owner])
            except RefusedError as error:
                raise refusal(error) from None
            return hold

    def describe(self, hold: Hold, mem_type: int) -> bytes:
        """Return NIXL's metadata of what an operation registered, with connection info, compressed.

        Raises
        ------
        StateError
            The operation has ended, and nothing is registered any more.
        """
        try:
            described = describe(self._agent, hold, mem_type, self._head)
        except (AgentClosedError, NativeError) as error:
            raise self.undescribed(error) from None
        if described is None:
            raise self.undescribed()
        return described

    def undescribed(self, error: AgentClosedError | NativeError | None = None) -> NixlConnectError:
        """Return what to raise where `describe` has failed, or has nothing to describe."""
        if isinstance(error, AgentClosedError):
            return ClosedError(f"the connector of {self.name!r} is closed")
        # It ended just now.
        return StateError("the operation has ended, so there is no metadata to hand out")

    def metadata(self) -> bytes:
        """Return the agent's whole metadata."""
        self._agent.handed_out = True
        with self._usable:
            return self._agent.metadata()

    def meet(self, described: Envelope, blob: bytes) -> None:
        """Load a peer's metadata."""
        with self._usable:
            self.keeper.refuse_amid()
            self.peers.admit(described, blob, self.options.timeout, Permit()).leave()

    def plugins(self) -> list[str]:
        """Return the names of the transports that NIXL found."""
        with self._usable:
            return self._agent.plugins()

    def refuse_after_fork(self) -> None:
        """Raise ClosedError in a child of the process that made the engine."""
        if self.forked:
            raise ClosedError(
                f"the connector of {self.name!r} was opened before this process was forked; open "
                "connectors in children only, or start processes with multiprocessing's 'spawn' "
                "or 'forkserver'"
            )

    def add_prepared(self, transfer: _Endable) -> None:
        """Have closing end a prepared transfer; refuse it if closing has passed."""
        with self._prepared_lock:
            if self.closed:
                raise ClosedError(f"the connector of {self.name!r} is closed")
            self._prepared.add(transfer)

    def registers(self, row: Row, mem_type: int) -> bool:
        """Whether NIXL holds a registration of this region now."""
        open_here = not self.closed and not self.forked
        return open_here and self.registry.covers(Regions([row]), mem_type)

    def cancel(self, operation: Operation) -> None:
        """Cancel an operation, unless it has ended."""
        self.refuse_after_fork()
        operation.cancel()
        self.collect()

    def finish(self, operation: Operation) -> None:
        """End a passive operation as complete, unless it has ended."""
        self.refuse_after_fork()
        operation.finish()
        self.collect()

    def keep(
        self, operation: Endable, native: Operation, on_end: Callable[[Any], object] | None
    ) -> None:
        """Keep an operation until it ends, and call `on_end` then; see `Kept.keep`."""
        self.refuse_after_fork()
        self._kept.keep(operation, native, on_end, self._loops.watch)

    # --- waiting ----------------------------------------------------------------------------

    def wait(self, operation: Operation, timeout: float | None) -> Coroutine[Any, Any, bool]:
        """Wait on the running loop for an operation's end; return whether it came in time."""
        if self.forked:
            self.refuse_after_fork()
        return self._loops.wait(operation, timeout)

    def collect(self) -> None:
        """Let go of what ended operations held. Cheap when there are none."""
        if not self.forked:
            self.keeper.collect()

    # --- the end ----------------------------------------------------------------------------

    def close(self, *, at_exit: bool = False) -> None:
        """Cancel what is left, let transfers in flight end, and give everything back. Idempotent.

        Each step may be repeated, and is when an exception (a signal handler's) interrupted it.

        Parameters
        ----------
        at_exit : bool
            The interpreter ends: do not wake those who wait, nor wait long for transfers.
        """
        if self.forked:
            return
        self.closed = self.starter.ordinary.closed = True
        if self.keeper.is_amid:
            # A finalizer or a signal handler, in the middle of something that closing needs.
            self.keeper.request_close()
            return
        with self._close_lock:
            if self._shutting_down:
                return  # a signal handler in the middle of it
            if not self._shut_down:
                self._shutting_down = True
                try:
                    drain = _EXIT_DRAIN if at_exit else self.options.drain
                    with self._prepared_lock:
                        prepared = list(self._prepared)
                    for transfer in prepared:
                        transfer._end_with_connector()
                    clean = self._reactor.stop(drain, not at_exit)
                    self.keeper.stop()
                    self._loops.close()
                    self._end_agent(clean, at_exit)
                    self._shut_down = True
                    logger.debug("%s: closed", self.name)
                finally:
                    self._shutting_down = False
        self.keeper.join()

    def _end_agent(self, clean: bool, at_exit: bool) -> None:
        lanes = self._lanes.stop(abandon=not clean)
        if clean:
            # First: who is in a call on it may use the others.
            self._agent.close()
            for lane in lanes:
                lane.close()
            self._messenger.close()
            return
        # A transfer may go on: neither the agents nor the memory may ever be freed.
        keep_forever(self)
        level = logging.DEBUG if at_exit else logging.WARNING
        logger.log(level, "%s: transfers did not end in time; their memory stays", self.name)

    # --- what there is ----------------------------------------------------------------------

    @property
    def lanes(self) -> list[Lane]:
        """Those that are open."""
        return self._lanes.all

    def counters(self) -> tuple[dict[str, int], list[tuple[int, int, int, int, int, list[int]]]]:
        """Return the reactor's counters and tallies, when what has ended has been let go of."""
        self.refuse_after_fork()
        self.collect()
        return self._reactor.counters, self._reactor.tallies

    def population(self) -> list[tuple[int, int, int, int]]:
        """Return how many operations there are of each sort; see `Reactor.population`."""
        self.refuse_after_fork()
        return self._reactor.population

    def operations(
        self, before: float, most: int
    ) -> list[tuple[int, int, int, int, bool, int, int, int, float, float, str]]:
        """Return the oldest operations, begun before a monotonic time; see `Reactor.operations`."""
        self.refuse_after_fork()
        return self._reactor.operations(before, most)


def _after_fork_in_child() -> None:
    # The child has copies without threads, and locks that nobody may ever release.
    for engine in engines():
        engine.forked = True
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _close_all() -> None:
    """Close what programs left open, silently, before the interpreter ends."""
    for engine in engines():
        engine.close(at_exit=True)

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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nixl_connect import library
from nixl_connect._native import envelope
from nixl_connect._native.agent import AgentClosedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.envelope import Envelope
from nixl_connect._native.operation import Operation, Stage
from nixl_connect._native.packing import Regions
from nixl_connect._native.reactor import Reactor
from nixl_connect.device import Device
from nixl_connect.errors import (
    BackendError,
    ClosedError,
    InternalError,
    MetadataError,
    StateError,
    TransferError,
)
from nixl_connect.keeper import Hold, Keeper
from nixl_connect.loops import Loops
from nixl_connect.options import Options
from nixl_connect.peers import Peer, Peers
from nixl_connect.permit import Permit
from nixl_connect.regions import Local, Target
from nixl_connect.registrations import Registration, Registrations
from nixl_connect.startup import start_agent
from nixl_connect.used import UsedKeys

logger = logging.getLogger(__name__)

# Transfers up to this many bytes are posted on the caller's thread: for the bytes that a copy moves
# in some tens of microseconds, a change of thread costs more than the copy.
INLINE_BYTES = 256 * 1024
# Registering more than this for the first time is not quick: pages are pinned one by one.
_QUICK_BYTES = 1024 * 1024
_QUICK_ROWS = 64
# Seconds that transfers in flight have when the interpreter ends.
_EXIT_DRAIN = 0.5

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
# What may never be freed: engines whose transfers did not end when they were closed.
_immortal: list[Engine] = []


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
        self.library = library.load()
        self.name = name
        self.options = options
        self._agent, self._connections, described = start_agent(
            name, options.plugins, options.progress_interval, self.library
        )
        self._connections_end = described.sections_at
        self._reactor = Reactor(self._agent)
        self.registrations = Registrations(self._agent)
        self.peers = Peers(self._agent, options.max_peer_regions, self._pump, described.connections)
        self.keeper = Keeper(
            self._reactor, self.registrations, self.peers, options.quarantine, self.close
        )
        self._loops = Loops(self.collect)
        self._used = UsedKeys()
        # Reentrant: a signal handler may close what is being closed.
        self._close_lock = threading.RLock()
        self._shutting_down = False
        self.closed = False
        self.forked = False
        self._shut_down = False
        _engines.add(self)

    # --- operations -------------------------------------------------------------------------

    def register(self, address: int, size: int, device: Device) -> Registration:
        """Register one region, or share a registration that holds it."""
        with self._usable():
            return self.registrations.acquire([(address, size, device)])[0]

    def hold(self, local: Local, permit: Permit) -> Hold:
        """Register memory for a passive operation. `listen` takes the hold over, or release it."""
        with self._usable(), self.registrations.entered(permit):
            permit.check()
            registrations = self.registrations.acquire(local.rows)
            return Hold(registrations, local.memory, local.nbytes, None)

    def listen(self, hold: Hold, key: bytes, timeout: float) -> Operation:
        """Wait for a peer's notification of `key`, and keep `hold` until no peer can touch it.

        Parameters
        ----------
        hold : Hold
            What the operation holds. Still the caller's if this raises.
        key : bytes
            The notification key.
        timeout : float
            Seconds after which the operation fails; infinity for never.
        """
        with self._usable():
            operation = self._reactor.passive(key, self.options.quarantine)
            self.keeper.holds[operation.id] = hold
            if not operation.listen(timeout):
                del self.keeper.holds[operation.id]
                raise AgentClosedError
        return operation

    def transfer(
        self, kind: int, local: Local, target: Target, timeout: float, permit: Permit
    ) -> Operation:
        """Load a peer's metadata, register local memory, and start a transfer.

        Parameters
        ----------
        kind : int
            0 to read, 1 to write.
        local, target
            What is transferred, here and at the peer, row by row.
        timeout : float
            Seconds after which the operation fails; infinity for never.
        permit : Permit
            Whether to wait, and whether to start at all.
        """
        with self._usable(), self._used.reserve(target.key) as started:
            for last in (False, True):
                operation: Operation | None = None
                peer = self.peers.admit(target.described, target.blob, timeout, permit)
                hold = Hold([], local.memory, target.regions.nbytes, peer)
                try:
                    operation = self._request(kind, local, target, hold, permit)
                    with permit.lock:
                        permit.check()
                        self.keeper.holds[operation.id] = hold
                        # From here on nothing is taken back: an exception of a signal handler may
                        # leak the hold, but must not release what NIXL uses.
                        started.set()
                        ended = operation.start(timeout, hold.nbytes <= INLINE_BYTES)
                    if ended:
                        self.keeper.end(operation.id, Stage.CLEAN, operation.reason)
                    return operation
                except NativeError as error:
                    self._explain(error, peer, target, last=last)
                    permit.need_patience()
                finally:
                    if not started.is_set():
                        operation = None  # its request first, which refers to the registrations
                        self.keeper.release(hold)
        raise InternalError("a transfer was neither started nor refused")

    def _request(
        self, kind: int, local: Local, target: Target, hold: Hold, permit: Permit
    ) -> Operation:
        """Build a transfer request whose local registrations outlive it.

        NIXL picks, for each row, any registration that covers it, and the request refers to that
        one for as long as it lives. So all that cover a row are held, from before any could leave.
        """
        regions = Regions([(address, size, device.id) for address, size, device in local.rows])
        assert hold.peer is not None
        with self.registrations.entered(permit):
            hold.registrations = self.registrations.acquire(local.rows)
            operation = self._reactor.active(
                kind,
                regions,
                local.mem_type,
                target.regions,
                target.mem_type,
                hold.peer.name.encode(),
                target.key,
            )
            hold.registrations += self.registrations.acquire_covering(local.rows)
        return operation

    def _explain(self, error: NativeError, peer: Peer, target: Target, *, last: bool) -> None:
        """Say why NIXL refused a request, or prepare the second attempt."""
        if not self.peers.covers(peer, target.regions, target.mem_type):
            raise MetadataError(
                f"the descriptors name memory that peer {peer.name!r} did not register"
            ) from None
        if last:
            status = status_name(error.status)
            raise TransferError(
                f"NIXL refused the transfer with peer {peer.name!r}: {status}",
                status=status,
                peer=peer.name,
            ) from None
        # NIXL has dropped the peer behind our back, when another transfer broke; or an older region
        # of the peer hides the wanted one.
        self.peers.mark_broken(peer)

    def describe(self, hold: Hold, mem_type: int) -> bytes:
        """Return NIXL's metadata of what an operation registered, with connection info.

        Raises
        ------
        StateError
            The operation has ended, and nothing is registered any more.
        """
        rows = list(dict.fromkeys(registration.row for registration in hold.registrations))
        with self._usable():
            try:
                if rows:
                    regions = self._agent.partial_metadata(Regions(rows), mem_type)
                    return envelope.splice(self._connections, self._connections_end, regions)
            except NativeError:
                pass  # it ended just now
        raise StateError("the operation has ended, so there is no metadata to hand out")

    def metadata(self) -> bytes:
        """Return the agent's whole metadata."""
        with self._usable():
            return self._agent.metadata()

    def meet(self, described: Envelope, blob: bytes) -> None:
        """Load a peer's metadata."""
        with self._usable():
            self.peers.leave(self.peers.admit(described, blob, self.options.timeout, Permit()))

    def plugins(self) -> list[str]:
        """Return the names of the transports that NIXL found."""
        with self._usable():
            return self._agent.plugins()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Refuse work after a fork or the end, also where that comes in the middle of it."""
        self.collect()
        try:
            self.refuse_after_fork()
            if self.closed:
                raise AgentClosedError
            yield
        except AgentClosedError:
            raise ClosedError(f"the connector of {self.name!r} is closed") from None
        except NativeError as error:
            raise BackendError(f"NIXL failed: {error}") from None

    def refuse_after_fork(self) -> None:
        """Raise ClosedError in a child of the process that made the engine."""
        if self.forked:
            raise ClosedError(
                f"the connector of {self.name!r} belongs to the parent of this process; "
                "make a new one after the fork"
            )

    def registers(self, address: int, size: int, device: Device) -> bool:
        """Whether NIXL holds a registration of this region now."""
        open_here = not self.closed and not self.forked
        return open_here and self.registrations.covers(address, size, device)

    def is_quick(self, rows: list[tuple[int, int, Device]], described: Envelope | None) -> bool:
        """Whether an operation on this memory, and with this peer, takes too little to be noticed.

        Then it may begin on an event loop. Not so where pages are to be pinned, a peer is to be
        loaded, or another thread is in a call to NIXL that takes long: NIXL lets in one at a time.
        """
        return self.forked or (
            len(rows) <= _QUICK_ROWS
            and self.peers.calls == 0
            and not self._reactor.is_posting
            and not self.registrations.is_busy
            and (described is None or self.peers.knows(described))
            and (
                sum(size for _, size, _ in rows) <= _QUICK_BYTES
                or all(self.registrations.covers(*row) for row in rows)
            )
        )

    def cancel(self, operation: Operation) -> None:
        """Cancel an operation, unless it has ended."""
        self.refuse_after_fork()
        operation.cancel()
        self.collect()

    # --- waiting ----------------------------------------------------------------------------

    async def wait(self, operation: Operation, timeout: float | None) -> bool:
        """Wait on the running loop for an operation's end; return whether it came in time."""
        self.refuse_after_fork()
        ended = await self._loops.wait(operation, timeout)
        self.collect()
        return ended

    def wait_blocking(self, operation: Operation, timeout: float | None) -> bool:
        """Block for an operation's end; return whether it came in time."""
        self.refuse_after_fork()
        ended = operation.wait(timeout)
        self.collect()
        return ended

    def _pump(self, timeout: float) -> None:
        if self.closed:
            raise AgentClosedError
        self._reactor.wait_retired(timeout)
        self.collect()

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
        with self._close_lock:
            self.closed = True
            if self._shutting_down:
                return  # a signal handler in the middle of it
            if not self._shut_down:
                self._shutting_down = True
                try:
                    clean = self._reactor.stop(
                        _EXIT_DRAIN if at_exit else self.options.drain, not at_exit
                    )
                    self.keeper.stop()
                    self._loops.close()
                    self._end_agent(clean, at_exit)
                    self._shut_down = True
                finally:
                    self._shutting_down = False
        self.keeper.join()

    def _end_agent(self, clean: bool, at_exit: bool) -> None:
        if clean:
            self._agent.close()
            return
        # A transfer did not end: neither the agent nor the memory may ever be freed.
        _immortal.append(self)
        level = logging.DEBUG if at_exit else logging.WARNING
        logger.log(
            level, "%s: transfers in flight did not end in time; their memory stays", self.name
        )

    def stats(self) -> dict[str, Any]:
        """Return what the engine holds and has done."""
        self.refuse_after_fork()
        counters = self._reactor.counters
        holds = self.keeper.kept
        return {
            "operations": {
                "started": counters["operations"],
                "waiting": counters["waiting"],
                "passive": counters["passive"],
                "active": counters["active"],
                "held": len(holds),
                "held_bytes": sum(hold.nbytes for hold in holds),
            },
            "registrations": {
                "count": len(self.registrations),
                "bytes": self.registrations.registered_bytes,
            },
            "peers": {
                "count": len(self.peers),
                "reloads": self.peers.reloads,
                "evictions": self.peers.evictions,
            },
            "notifications": {
                "received": counters["notifications"],
                "unmatched": counters["notifications_unmatched"],
            },
            "library": {"path": self.library.path, "version": self.library.version},
        }


def _after_fork_in_child() -> None:
    # The child has copies without threads, and locks that nobody may ever release.
    for engine in list(_engines):
        engine.forked = True
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _close_all() -> None:
    """Close what programs left open, silently, before the interpreter ends."""
    for engine in list(_engines):
        engine.close(at_exit=True)

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
from typing import Any, NamedTuple

from nixl_connect import library
from nixl_connect._native import envelope
from nixl_connect._native.agent import AgentClosedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.envelope import Envelope
from nixl_connect._native.operation import Operation, Stage
from nixl_connect._native.packing import Regions
from nixl_connect._native.reactor import Reactor
from nixl_connect.device import Device
from nixl_connect.errors import ClosedError, MetadataError, StateError, TransferError
from nixl_connect.keeper import Hold, Keeper
from nixl_connect.loops import Loops
from nixl_connect.options import Options
from nixl_connect.peers import Peers
from nixl_connect.registrations import Registration, Registrations
from nixl_connect.startup import start_agent

logger = logging.getLogger(__name__)

# Transfers up to this many bytes are posted on the caller's thread: for the bytes that a copy moves
# in some tens of microseconds, a change of thread costs more than the copy.
INLINE_BYTES = 256 * 1024
# Seconds that transfers in flight have when the interpreter ends.
_EXIT_DRAIN = 0.5

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
# What may never be freed: engines whose transfers did not end when they were closed.
_immortal: list[Engine] = []


class Local(NamedTuple):
    """Memory of this process that an operation uses."""

    rows: list[tuple[int, int]]
    """Address and size of each region."""

    device: Device
    """Where all of them are."""

    memory: list[Any]
    """What keeps them alive."""


class Target(NamedTuple):
    """Memory of a peer, and how to reach it."""

    regions: Regions
    mem_type: int
    described: Envelope
    """The peer's metadata, parsed."""

    blob: bytes
    """The same, as NIXL takes it."""

    key: bytes
    """What to notify the peer with."""


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
        self._agent, self._connections, self._connections_end = start_agent(
            name, options.plugins, options.progress_interval, self.library
        )
        self._reactor = Reactor(self._agent)
        self.registrations = Registrations(self._agent)
        self.peers = Peers(self._agent, options.max_peer_regions, self._pump)
        self.keeper = Keeper(
            self._reactor, self.registrations, self.peers, options.quarantine, self.close
        )
        self._loops = Loops(self.collect)
        self._close_lock = threading.Lock()
        self.closed = False
        self.forked = False
        _engines.add(self)

    # --- operations -------------------------------------------------------------------------

    def register(self, address: int, size: int, device: Device) -> Registration:
        """Register one region, or share a registration that holds it."""
        with self._usable():
            return self.registrations.acquire(address, size, device)

    def hold(self, local: Local) -> Hold:
        """Register memory for a passive operation. `listen` takes the hold over, or release it."""
        with self._usable():
            registrations = self._register(local)
            nbytes = sum(size for _, size in local.rows)
            return Hold(registrations, local.memory, nbytes, None)

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

    def transfer(self, kind: int, local: Local, target: Target, timeout: float) -> Operation:
        """Load a peer's metadata, register local memory, and start a transfer.

        Parameters
        ----------
        kind : int
            0 to read, 1 to write.
        local, target
            What is transferred, here and at the peer, row by row.
        timeout : float
            Seconds after which the operation fails; infinity for never.
        """
        with self._usable():
            for last in (False, True):
                peer = self.peers.admit(target.described, target.blob, timeout)
                hold = Hold([], local.memory, target.regions.nbytes, peer)
                try:
                    operation = self._request(kind, local, target, hold, peer.name.encode())
                    break
                except NativeError as error:
                    self.keeper.release(hold)
                    if not self.peers.covers(peer, target.regions, target.mem_type):
                        raise MetadataError(
                            f"the descriptors name memory that peer {peer.name!r} did not register"
                        ) from None
                    if not last:
                        # NIXL dropped the peer behind our back, when another transfer broke.
                        self.peers.mark_broken(peer)
                        continue
                    raise TransferError(
                        f"NIXL refused the transfer with peer {peer.name!r}: "
                        f"{status_name(error.status)}",
                        status=status_name(error.status),
                        peer=peer.name,
                    ) from None
                except BaseException:
                    self.keeper.release(hold)
                    raise
            self.keeper.holds[operation.id] = hold
            if operation.start(timeout, target.regions.nbytes <= INLINE_BYTES):
                self.keeper.end(operation.id, Stage.CLEAN, operation.reason)
        return operation

    def _request(
        self, kind: int, local: Local, target: Target, hold: Hold, peer: bytes
    ) -> Operation:
        """Build a transfer request whose local registrations outlive it.

        NIXL picks, for each row, any registration that covers it, and the request refers to that
        one for as long as it lives. So all that cover a row are held, and if one went away before
        they were, the request is built again.
        """
        regions = Regions([(address, size, local.device.id) for address, size in local.rows])
        hold.registrations = self._register(local)
        while True:
            removals = self.registrations.removals
            operation = self._reactor.active(
                kind,
                regions,
                local.device.mem_type,
                target.regions,
                target.mem_type,
                peer,
                target.key,
            )
            for address, size in local.rows:
                hold.registrations += self.registrations.acquire_all(address, size, local.device)
            if removals == self.registrations.removals:
                return operation

    def _register(self, local: Local) -> list[Registration]:
        registrations: list[Registration] = []
        try:
            for address, size in local.rows:
                registrations.append(self.registrations.acquire(address, size, local.device))
        except BaseException:
            for registration in registrations:
                self.registrations.release(registration)
            raise
        return registrations

    def describe(self, hold: Hold, device: Device) -> bytes:
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
                    regions = self._agent.partial_metadata(Regions(rows), device.mem_type)
                    return envelope.splice(self._connections, self._connections_end, regions)
            except NativeError:
                pass  # it ended just now
        raise StateError("the operation has ended, so there is no metadata to hand out")

    def metadata(self) -> bytes:
        """Return the agent's whole metadata."""
        with self._usable():
            return self._agent.metadata()

    def plugins(self) -> list[str]:
        """Return the names of the transports that NIXL found."""
        with self._usable():
            return self._agent.plugins()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Refuse work after a fork or the end, also where that comes in the middle of it."""
        self.collect()
        try:
            self._refuse_after_fork()
            if self.closed:
                raise AgentClosedError
            yield
        except AgentClosedError:
            raise ClosedError(f"the connector of {self.name!r} is closed") from None

    def _refuse_after_fork(self) -> None:
        if self.forked:
            raise ClosedError(
                f"the connector of {self.name!r} belongs to the parent of this process; "
                "make a new one after the fork"
            )

    def registers(self, address: int, size: int, device: Device) -> bool:
        """Whether NIXL holds a registration of this region now."""
        return not self.closed and self.registrations.covers(address, size, device)

    def cancel(self, operation: Operation) -> None:
        """Cancel an operation, unless it has ended."""
        self._refuse_after_fork()
        operation.cancel()
        self.collect()

    # --- waiting ----------------------------------------------------------------------------

    async def wait(self, operation: Operation, timeout: float | None) -> bool:
        """Wait on the running loop for an operation's end; return whether it came in time."""
        self._refuse_after_fork()
        ended = await self._loops.wait(operation, timeout)
        self.collect()
        return ended

    def wait_blocking(self, operation: Operation, timeout: float | None) -> bool:
        """Block for an operation's end; return whether it came in time."""
        self._refuse_after_fork()
        ended = operation.wait(timeout)
        self.collect()
        return ended

    def _pump(self, timeout: float) -> None:
        self._reactor.wait_retired(timeout)
        self.collect()

    def collect(self) -> None:
        """Let go of what ended operations held. Cheap when there are none."""
        if not self.forked:
            self.keeper.collect()

    # --- the end ----------------------------------------------------------------------------

    def close(self, *, at_exit: bool = False) -> None:
        """Cancel what is left, let transfers in flight end, and give everything back. Idempotent.

        Parameters
        ----------
        at_exit : bool
            The interpreter ends: do not wake those who wait, nor wait long for transfers.
        """
        if self.forked:
            return
        with self._close_lock:
            if not self.closed:
                self.closed = True
                self._shut_down(at_exit)
        self.keeper.join()

    def _shut_down(self, at_exit: bool) -> None:
        clean = self._reactor.stop(_EXIT_DRAIN if at_exit else self.options.drain, not at_exit)
        self.keeper.stop()
        self._loops.close()
        if clean:
            self._agent.close()
        else:
            # A transfer did not end: neither the agent nor the memory may ever be freed.
            _immortal.append(self)
            level = logging.DEBUG if at_exit else logging.WARNING
            logger.log(
                level,
                "%s: transfers in flight did not end in time; their memory stays",
                self.name,
            )

    def stats(self) -> dict[str, Any]:
        """Return what the engine holds and has done."""
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
            "peers": {"count": len(self.peers), "reloads": self.peers.reloads},
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

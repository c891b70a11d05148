"""Prepared transfers: the same memory, moved repeatedly with one request."""

from __future__ import annotations

import time
from typing import Any, ClassVar, TypeVar

from nixl_connect._native import prepared as native
from nixl_connect._native.agent import AgentClosedError, AgentForkedError
from nixl_connect._native.capi import status_name
from nixl_connect._native.operation import Reason
from nixl_connect.checks import seconds
from nixl_connect.engine.connection import Connection, Remote
from nixl_connect.engine.offload import Beginnings, Job, on_thread, start_thread
from nixl_connect.engine.starter import INLINE_BYTES, LARGE_BYTES
from nixl_connect.errors import (
    ClosedError,
    NixlConnectError,
    OperationCancelledError,
    PeerLostError,
    StateError,
    TransferError,
    TransferTimeoutError,
)
from nixl_connect.memory.blocks import Blocks
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.operations.active import ActiveOperation
from nixl_connect.operations.base import LOST, error_of, local_failure
from nixl_connect.peers.peer import Peer
from nixl_connect.permit import HASTY, PATIENT, NotQuickError, Permit
from nixl_connect.status import OperationKind

# Rather than Self: editors that use jedi know only this as the class of whoever is entered.
_Self = TypeVar("_Self", bound="PreparedTransfer")

_IN_FLIGHT = 1
# How long (seconds) a loop waits for a small transfer itself.
_LOOK = 100e-6
# How long (seconds) a thread waits at a stretch.
_SLICE = 0.05


class PreparedTransfer(native.Prepared):
    """A repeatable transfer: a `PreparedRead` or a `PreparedWrite`.

    Everything that an operation costs besides the transfer, from parsing to registration, is paid
    once. The passive side creates one operation, whose timeout should cover all transfers, and is
    notified once, when the prepared transfer is closed. How it learns of single transfers is up to
    the application.

    Only one transfer can run at a time. Leaving a ``with`` block closes the prepared transfer.
    Leaving it with an exception, or dropping the object, cancels it and tells the passive side so.
    """

    _kind: ClassVar[OperationKind] = OperationKind.UNSPECIFIED
    _peer: Peer

    def __init__(self, operation: ActiveOperation, beginnings: Beginnings, permit: Permit) -> None:
        self._set_up(operation, LARGE_BYTES)
        self._beginnings = beginnings
        self._operation = operation  # never begun: it has parsed and checked everything
        self._engine = operation._connection._engine
        self._nbytes = operation._local.regions.nbytes
        # Who has the turn has been counted by the peer.
        self._prepare(permit, anew=False)
        self._engine.add_prepared(self)

    def _prepare(self, permit: Permit, *, anew: bool) -> None:
        self._native, self._peer = self._engine.starter.prepare(
            self._operation._plan, permit, anew=anew
        )

    def __del__(self) -> None:
        # Nothing is in flight: whoever waits for a transfer refers to this.
        if self._native is not None and not self._engine.forked:
            self._drop(Reason.LOCAL)

    @property
    def connection(self) -> Connection:
        """The connection that the transfer belongs to."""
        return self._operation.connection

    @property
    def operation_kind(self) -> OperationKind:
        """Whether data is read or written."""
        return self._kind

    @property
    def remote(self) -> Remote:
        """The peer."""
        return self._operation.remote

    @property
    def closed(self) -> bool:
        """Whether it is closed, cancelled or failed, so that nothing more can be transferred."""
        return self._native is None

    @staticmethod
    def _patience(timeout: float) -> float:
        return seconds("timeout", timeout)

    def _transfer_patiently(self, patience: float) -> None:
        """Do what `transfer_blocking` does, whatever is to be waited for first."""
        end = time.monotonic() + patience
        fence = self._operation._fence()
        if fence is not None:
            self._engine.refuse_after_fork()
            fence.wait(Permit(patience))
        self._take(Permit(patience))
        self._run(end, again=True)

    async def transfer(self, timeout: float | None = None) -> None:
        """Move the bytes, and wait until all have arrived.

        If the task is cancelled, the transfer continues, and no other can start before it ends.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which the transfer fails; by default the timeout of the preparation.

        Raises
        ------
        TransferTimeoutError
            The transfer took longer. Also a TimeoutError.
        PeerLostError
            The connection to the peer broke. Also a ConnectionError.
        TransferError
            NIXL failed the transfer. Also a RuntimeError.
        StateError
            It is closed, or another transfer is in progress. A transfer that fails after it has
            begun closes it.
        """
        patience = self._timeout if timeout is None else seconds("timeout", timeout)
        end = time.monotonic() + patience
        fence = self._operation._fence()
        if fence is not None:
            self._engine.refuse_after_fork()
            await self._beginnings.begin(fence.wait, fence.name, patience)
        await self._take_turn(patience)
        posted = self._nbytes <= INLINE_BYTES and self._engine.starter.is_free
        if posted:
            try:
                rc = self._post(min(_LOOK, max(end - time.monotonic(), 0)))
                if rc not in (0, _IN_FLIGHT):
                    raise self._failure(rc)
            except BaseException:
                self._break_off(Reason.LOCAL)
                raise
            if rc == 0:
                self._give_back()
                return
        started = False

        def start(job: Job) -> None:
            nonlocal started
            start_thread(job)
            started = True

        try:
            await on_thread(lambda: self._run(end, again=not posted), start=start)
        except BaseException:
            if not started:  # there was no thread to be had
                if posted:
                    self._break_off(Reason.LOCAL)
                else:
                    self._give_back()
            raise

    async def _take_turn(self, patience: float) -> None:
        """Take the turn, on the thread of the peer's beginnings where that is not quick."""
        taken = False

        def take(permit: Permit) -> None:
            nonlocal taken
            self._take(permit)
            with permit.lock:
                taken = not permit.revoked
            if not taken:
                self._give_back()

        try:
            await self._beginnings.begin(take, self._operation._peer_name, patience)
        except BaseException:
            if taken:  # too late for whoever wanted it
                self._give_back()
            raise

    def _take(self, permit: Permit) -> None:
        """Take the turn, with a request that fits the peer's connection."""
        self._engine.refuse_after_fork()
        if not self._acquire():
            raise StateError(f"{self!r}: one thing at a time, and a transfer is going on")
        try:
            if self._native is None:
                raise StateError(f"{self!r} is closed; prepare anew")
            if self._engine.closed:
                raise ClosedError(f"{self!r}: the connector is closed")
            if self._peer.is_quiet:
                self._look_at_connection(permit)
            while not self._peer.enter():
                self._renew(permit)
        except BaseException:
            self._release()
            raise

    def _look_at_connection(self, permit: Permit) -> None:
        """Have a connection made anew that broke while nothing went over it."""
        if not self._engine.starter.is_free:
            permit.need_patience()
        if not self._engine.peers.stands(self._peer):
            self._engine.peers.mark_broken(self._peer)

    def _renew(self, permit: Permit) -> None:
        """Wait for a thread that loads the peer; recreate the request for another connection."""
        self._engine.keeper.refuse_amid()
        permit.need_patience()
        if not self._peer.broken:
            self._engine.peers.wait_until_free(self._peer, self._timeout, permit)
            return
        old = self._native
        self._prepare(permit, anew=True)
        assert old is not None
        self._engine.starter.unprepare(old)

    def _give_back(self) -> None:
        self._peer.leave()
        self._release()

    def _run(self, end: float, *, again: bool) -> None:
        """Post, or go on with what is posted, and wait for its end. Gives the turn back."""
        patience = max(end - time.monotonic(), 0)
        try:
            rc = self._post(min(patience, _SLICE), again=again)
            self._go_on(rc, end)
        except BaseException:
            self._break_off(Reason.LOCAL)
            raise
        self._give_back()

    def _go_on(self, rc: int, end: float) -> None:
        """Wait for what is posted, in slices, so that signals and closing are seen.

        Parameters
        ----------
        rc : int
            What has become of it so far.
        end : float
            Until when to wait, by the monotonic clock.
        """
        if rc in (native.Outcome.CLOSED, native.Outcome.FORKED):
            raise self._closed()
        while rc == _IN_FLIGHT and not self._engine.closed:
            left = end - time.monotonic()
            if left <= 0:
                break
            rc = self._post(min(left, _SLICE), again=False)
        if rc:
            raise self._failure(rc)

    def _closed(self) -> ClosedError:
        self._engine.refuse_after_fork()
        return ClosedError(f"{self!r}: the connector is closed")

    def _post(self, patience: float, *, again: bool = True) -> int:
        assert self._native is not None  # nobody ends it during a turn
        try:
            rc: int = native.post(self._native, patience, self._nbytes > LARGE_BYTES, again)
        except (AgentClosedError, AgentForkedError):
            raise self._closed() from None
        return rc

    def _failure(self, rc: int) -> NixlConnectError:
        """End what has failed, and return the error of its status."""
        name = self._peer.name
        if rc in (_IN_FLIGHT, native.Outcome.PEER_GONE) and self._engine.closed:
            self._break_off(Reason.CLOSED)
            return OperationCancelledError(f"{self!r} was cancelled: the connector closed")
        if rc == _IN_FLIGHT:
            self._break_off(Reason.TIMEOUT, failed=True)
            return TransferTimeoutError(
                f"a prepared transfer with peer {name!r} did not end in time",
                peer=name,
            )
        if rc == native.Outcome.PEER_GONE:
            self._engine.peers.mark_broken(self._peer)
            self._break_off(Reason.PEER_LOST)
            return PeerLostError(f"peer {name!r} is gone", peer=name)
        lost = not self._engine.peers.reaches(self._peer)
        self._engine.peers.mark_broken(self._peer)
        self._break_off(Reason.TRANSFER, failed=True)
        fault = self._operation._local_fault()
        if fault:
            return local_failure(repr(self), fault, rc, name)
        kind, text = (PeerLostError, LOST) if lost else (TransferError, "failed")
        status = status_name(rc)
        return kind(f"{self!r} {text} (NIXL: {status})", status=status, peer=name)

    def _break_off(self, reason: int, *, failed: bool = False) -> None:
        """End during a turn, and give that back. What is in flight is drained; idempotent."""
        operation = self._native
        if operation is None:
            return
        if not self._engine.forked:
            # The peer counts it until it is drained, and the memory stays as long.
            hold = operation.hold
            if hold is not None:
                hold.peer = self._peer
            self._drop(reason, failed=failed)
        self._release()

    def _drop(self, reason: int, *, failed: bool = False) -> None:
        """Leave the operation to the completion thread. No call to NIXL."""
        operation, self._native = self._native, None
        if operation is not None and not native.give_up(operation, reason, failed):
            self._engine.starter.unprepare(operation)

    def close(self) -> None:
        """Close it, and tell the passive side that its operation is complete. Idempotent.

        Blocks if the peer has to be reconnected to be told.

        Raises
        ------
        StateError
            A transfer is in progress.
        TransferError
            The peer could not be told. Also a RuntimeError.
        ClosedError
            The parent process prepared it. Also a RuntimeError.
        """
        self._engine.refuse_after_fork()
        self._close(PATIENT)

    def _close(self, permit: Permit) -> None:
        if self._native is None:
            return
        if not self._engine.starter.is_free:
            permit.need_patience()
        try:
            self._take(permit)
        except (ClosedError, StateError):
            if self._native is None or self._engine.closed:
                return  # the connector has ended it, or is about to
            raise
        except TransferError:
            self.cancel()
            raise
        operation = self._native
        try:
            self._engine.starter.conclude(operation)
        except BaseException:
            self._break_off(Reason.LOCAL)
            raise
        self._native = None
        self._give_back()
        self._engine.collect()
        if operation.reason:
            self._engine.peers.mark_broken(self._peer)
            raise error_of(operation, repr(self), self._peer.name, self._timeout)

    def cancel(self) -> None:
        """Cancel it, and tell the passive side that its operation is cancelled. Idempotent.

        A peer that was disconnected or reconnected since the last transfer may not be told. Its
        operation then ends at its own deadline.

        Raises
        ------
        StateError
            A transfer is in progress.
        ClosedError
            The parent process prepared it. Also a RuntimeError.
        """
        self._engine.refuse_after_fork()
        if self._native is None:
            return
        if not self._acquire():
            raise StateError(f"{self!r} cannot be cancelled while a transfer is going on")
        try:
            self._drop(Reason.LOCAL)
        finally:
            self._release()
        self._engine.collect()

    def _end_with_connector(self) -> None:
        """Let go, unless a transfer is going on: that sees by itself that the connector closes."""
        if self._acquire():
            try:
                self._drop(Reason.CLOSED)
            finally:
                self._release()

    def __enter__(self: _Self) -> _Self:  # noqa: PYI019
        self._engine.refuse_after_fork()
        if self._native is None:
            raise StateError(f"{self!r} is closed; prepare anew")
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._engine.forked:
            return  # a child leaves what the parent has entered
        if kind is None:
            self.close()
        else:
            self.cancel()

    async def __aenter__(self: _Self) -> _Self:  # noqa: PYI019
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._engine.forked:
            return
        if kind is not None:
            self.cancel()
            return
        try:
            self._close(HASTY)
        except NotQuickError:
            await on_thread(self.close)

    def __reduce__(self) -> Any:
        raise TypeError(
            "a prepared transfer cannot be copied or pickled; prepare one in the other process"
        )

    def __repr__(self) -> str:
        regions = self._operation._local.regions
        return (
            f"{type(self).__name__}({'closed, ' if self.closed else ''}{len(regions)} regions, "
            f"{regions.nbytes} bytes, peer={self._operation._peer_name!r})"
        )


class PreparedRead(PreparedTransfer):
    """A repeatable read from a peer's memory."""

    _kind = OperationKind.READ

    def results(self) -> list[Descriptor | Blocks]:
        """Return the local descriptors. Their memory holds what the last transfer read."""
        return list(self._operation._items)


class PreparedWrite(PreparedTransfer):
    """A repeatable write to a peer's memory."""

    _kind = OperationKind.WRITE

"""Prepared transfers: the same memory, moved again and again with one request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from nixl_connect._native import prepared as native
from nixl_connect._native.agent import AgentClosedError, AgentForkedError
from nixl_connect._native.capi import status_name
from nixl_connect._native.operation import Operation, Reason
from nixl_connect.active import ActiveOperation
from nixl_connect.connection import Connection, Remote
from nixl_connect.descriptor import Descriptor
from nixl_connect.errors import (
    ClosedError,
    OperationCancelledError,
    PeerLostError,
    StateError,
    TransferError,
    TransferTimeoutError,
)
from nixl_connect.offload import on_thread
from nixl_connect.options import seconds
from nixl_connect.permit import HASTY, NotQuickError, Permit
from nixl_connect.starter import LARGE_BYTES
from nixl_connect.status import OperationKind

if TYPE_CHECKING:
    from typing_extensions import Self

_IN_FLIGHT = 1
# For those who block: nobody revokes it.
_PATIENT = Permit()
# How long (seconds) a loop waits for a small transfer itself.
_LOOK = 100e-6


class PreparedTransfer:
    """A transfer that can be made again and again: a `PreparedRead` or a `PreparedWrite`.

    All that an operation costs beside the transfer, from parsing to registration, is paid once. The
    passive side makes one operation, with a timeout that lasts, and is told once, when this is
    closed; how it learns of single transfers is the application's affair.

    One transfer at a time. Leaving a ``with`` block closes; with an exception it cancels, as
    dropping the object does, and the passive side is told so.
    """

    _kind: ClassVar[OperationKind] = OperationKind.UNSPECIFIED

    def __init__(self, operation: ActiveOperation, permit: Permit) -> None:
        self._native: Operation | None = None
        self._operation = operation  # never begun: it has parsed and checked everything
        self._engine = operation._connection._engine
        self._timeout = operation._timeout
        self._large = operation._local.regions.nbytes > LARGE_BYTES
        # Held while a transfer goes on, which may begin on one thread and end on another.
        self._turn = threading.Lock()
        self._prepare(permit, anew=False)
        self._engine.prepared.add(self)

    def _prepare(self, permit: Permit, *, anew: bool) -> None:
        self._native, self._peer, self._generation = self._engine.starter.prepare(
            self._operation._plan, permit, anew=anew
        )

    def __del__(self) -> None:
        if self._native is not None and not self._engine.forked:
            self._give_up(Reason.LOCAL)

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
        """Whether nothing can be transferred any more: closed, cancelled or failed."""
        return self._native is None

    def transfer_blocking(self, timeout: float | None = None) -> None:
        """Move the bytes, and block until all have arrived: `transfer` without an event loop."""
        patience = self._timeout if timeout is None else seconds("timeout", timeout)
        self._take(_PATIENT)
        try:
            rc = self._post(patience)
            if rc:
                self._check(rc, patience)
        finally:
            self._give_back()

    async def transfer(self, timeout: float | None = None) -> None:
        """Move the bytes, and wait until all have arrived.

        If the task is cancelled the transfer goes on, and no other can be made before its end.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which it fails; that of the preparation if not given.

        Raises
        ------
        TransferTimeoutError
            It took longer. A TimeoutError.
        PeerLostError
            The peer is gone. A ConnectionError.
        TransferError
            NIXL failed it. A RuntimeError.
        StateError
            Closed, or another transfer is going on. After each of the other errors, it is closed.
        """
        patience = self._timeout if timeout is None else seconds("timeout", timeout)
        if self._large:
            await on_thread(lambda: self.transfer_blocking(patience))
            return
        try:
            self._take(HASTY)
        except NotQuickError:
            await on_thread(lambda: self.transfer_blocking(patience))
            return
        going_on = False
        try:
            rc = self._post(min(_LOOK, patience))
            going_on = rc == _IN_FLIGHT
            if rc and not going_on:
                self._check(rc, patience)
        finally:
            if not going_on:
                self._give_back()
        if going_on:
            await on_thread(lambda: self._go_on(patience))

    def _go_on(self, patience: float) -> None:
        """Wait for what a loop has posted."""
        try:
            rc = self._post(patience, again=False)
            if rc:
                self._check(rc, patience)
        finally:
            self._give_back()

    def _take(self, permit: Permit) -> None:
        """Take the turn, with a request that fits the peer's connection."""
        if not self._turn.acquire(False):
            raise StateError(f"{self!r}: one transfer at a time, and one is going on")
        try:
            if self._native is None:
                raise StateError(f"{self!r} is closed; prepare anew")
            while not self._peer.enter(self._generation):
                self._renew(permit)
        except BaseException:
            self._turn.release()
            raise

    def _renew(self, permit: Permit) -> None:
        """Make the request anew: the peer was disconnected, and with it went the old one."""
        permit.need_patience()
        operation, self._native = self._native, None
        if operation is not None:
            self._engine.starter.unprepare(operation)
        self._prepare(permit, anew=True)

    def _give_back(self) -> None:
        self._peer.last_used = time.monotonic()
        self._peer.leave()
        self._turn.release()

    def _post(self, patience: float, *, again: bool = True) -> int:
        assert self._native is not None  # nobody ends it during a turn
        try:
            rc: int = native.post(self._native, patience, self._large, again)
        except (AgentClosedError, AgentForkedError):
            self._engine.refuse_after_fork()
            raise ClosedError(f"{self!r}: the connector is closed") from None
        return rc

    def _check(self, rc: int, patience: float) -> None:
        """Raise for a status other than 0."""
        name = self._peer.name
        if rc == _IN_FLIGHT:
            closed = self._engine.closed
            self._give_up(Reason.CLOSED if closed else Reason.TIMEOUT, failed=not closed)
            if closed:
                raise OperationCancelledError(f"{self!r} was cancelled: the connector closed")
            raise TransferTimeoutError(
                f"a prepared transfer with peer {name!r} did not end within {patience} s",
                peer=name,
            )
        lost = not self._engine.peers.answers(self._peer)
        self._engine.peers.mark_broken(self._peer)
        self._give_up(Reason.TRANSFER, failed=True)
        kind, text = (PeerLostError, "is gone") if lost else (TransferError, "failed the transfer")
        status = status_name(rc)
        raise kind(f"peer {name!r} {text} (NIXL: {status})", status=status, peer=name)

    def close(self) -> None:
        """End it, and tell the passive side that its operation is complete. Idempotent.

        Raises
        ------
        StateError
            A transfer is going on.
        """
        self._end(self._engine.starter.conclude)

    def cancel(self) -> None:
        """End it, and tell the passive side that its operation is cancelled. Idempotent.

        Raises
        ------
        StateError
            A transfer is going on.
        """
        self._end(lambda operation: native.give_up(operation, Reason.LOCAL, False))

    def _end(self, how: Callable[[Operation], None]) -> None:
        if self._engine.forked:
            return
        if not self._turn.acquire(blocking=False):
            raise StateError(f"{self!r} cannot be ended while a transfer is going on")
        try:
            operation, self._native = self._native, None
            if operation is not None:
                how(operation)
                self._engine.collect()
        finally:
            self._turn.release()

    def _end_with_connector(self, patience: float) -> None:
        """End because the connector closes, once a transfer that goes on is over.

        One that takes longer than `patience` seconds sees by itself that the connector closes.
        """
        if self._turn.acquire(timeout=patience):
            try:
                self._give_up(Reason.CLOSED)
            finally:
                self._turn.release()

    def _give_up(self, reason: int, *, failed: bool = False) -> None:
        operation, self._native = self._native, None
        if operation is not None:
            native.give_up(operation, reason, failed)
            self._engine.collect()

    def __enter__(self) -> Self:
        if self._native is None:
            raise StateError(f"{self!r} is closed; prepare anew")
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            self.close()
        else:
            self.cancel()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.__exit__(kind)

    def __repr__(self) -> str:
        regions = self._operation._local.regions
        return (
            f"{type(self).__name__}({'closed, ' if self.closed else ''}{len(regions)} regions, "
            f"{regions.nbytes} bytes, peer={self._operation._peer_name!r})"
        )


class PreparedRead(PreparedTransfer):
    """A read from a peer's memory that can be made again and again."""

    _kind = OperationKind.READ

    def results(self) -> list[Descriptor]:
        """Return the local descriptors, whose memory holds what the last transfer has read."""
        return list(self._operation._descriptors)


class PreparedWrite(PreparedTransfer):
    """A write to a peer's memory that can be made again and again."""

    _kind = OperationKind.WRITE

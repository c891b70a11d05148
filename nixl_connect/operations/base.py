"""What the four operations have in common: status, waiting, cancelling, and how they fail.

Constructing an operation checks everything and touches nothing. Beginning it, which may take long,
is a separate step, so that connectors can choose the thread for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from nixl_connect._native.capi import status_name
from nixl_connect._native.handle import Handle
from nixl_connect._native.operation import Operation, Reason
from nixl_connect._native.overlaps import within
from nixl_connect._native.packing import Regions
from nixl_connect._native.plan import Local
from nixl_connect._native.registry import RefusedError
from nixl_connect._native.span import have_streams
from nixl_connect.checks import seconds
from nixl_connect.engine.connection import Connection
from nixl_connect.errors import (
    ArgumentError,
    ArgumentTypeError,
    InternalError,
    NixlConnectError,
    OperationCancelledError,
    PeerLostError,
    StateError,
    TransferError,
    TransferTimeoutError,
    WaitTimeoutError,
)
from nixl_connect.memory import mapped
from nixl_connect.memory.blocks import Blocks
from nixl_connect.memory.cuda import Fence
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.memory.overlaps import refuse_within
from nixl_connect.peers.registrations import refusal
from nixl_connect.permit import Permit
from nixl_connect.status import OperationKind, OperationStatus

# Rather than Self: editors that use jedi know only this as the class of whoever is entered.
_Self = TypeVar("_Self", bound="AbstractOperation")

Descriptors = Descriptor | Blocks | Sequence[Descriptor | Blocks]
"""The descriptors that an operation accepts."""

_COMPLETE = int(OperationStatus.COMPLETE)


class AbstractOperation(Handle, ABC):
    """What the four operations have in common.

    Leaving a ``with`` block or dropping the operation cancels it, unless it has ended.
    """

    _kind: ClassVar[OperationKind] = OperationKind.UNSPECIFIED

    # Native, as is what takes arguments in which there is nothing unusual.
    if TYPE_CHECKING:
        _connection: Connection
        _items: list[Descriptor | Blocks]
        _descriptors: list[Descriptor]

    @property
    def connection(self) -> Connection:
        """The connection that the operation belongs to."""
        return self._connection

    @property
    def operation_kind(self) -> OperationKind:
        """Whether data is read or written, as the active side sees it."""
        return self._kind

    @property
    def status(self) -> OperationStatus:
        """State of the operation. Only reads memory; never starts, polls or blocks anything."""
        native = self._native
        return OperationStatus(0 if native is None else native.status)

    def cancel(self) -> None:
        """Cancel the operation. Does nothing if it has ended.

        A transfer in flight cannot be recalled: it is drained in the background, with its memory
        kept alive, and then the peer is told.
        """
        if self._native is not None:
            self._connection._engine.cancel(self._native)

    async def wait_for_completion(self, timeout: float | None = None) -> None:
        """Wait until the operation is complete.

        Any number of tasks, event loops and threads may wait. Cancelling a task that waits does not
        cancel the operation.

        Parameters
        ----------
        timeout : float, optional
            Maximum seconds to wait; by default, until the operation ends.

        Raises
        ------
        WaitTimeoutError
            The timeout passed; the operation continues. Also a TimeoutError.
        OperationCancelledError
            The operation was cancelled, here or by the peer. Also a RuntimeError.
        PeerLostError
            The connection to the peer broke, or could not be made. Also a ConnectionError.
        TransferTimeoutError
            The operation's own deadline passed. Also a TimeoutError.
        TransferError
            NIXL failed the transfer. Also a RuntimeError, like all of these except
            WaitTimeoutError.
        """
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        native = self._native or self._begun()
        if not native.has_ended and not await self._connection._engine.wait(native, timeout):
            raise WaitTimeoutError(f"{self!r} did not end within {timeout} s")
        if native.status != _COMPLETE:
            raise self._error(native)

    def wait_for_completion_blocking(self, timeout: float | None = None) -> None:
        """Block until the operation is complete: the blocking form of `wait_for_completion`."""
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        native = self._native or self._begun()
        if not native.has_ended and not self._wait(timeout):
            raise WaitTimeoutError(f"{self!r} did not end within {timeout} s")
        if native.status != _COMPLETE:
            raise self._error(native)

    def _fence(self) -> Fence | None:
        """Return what the descriptors' streams have been given to do by now, if they have any."""
        if not have_streams(self._descriptors):
            return None
        return Fence({(x.device, x._stream) for x in self._descriptors if x._stream is not None})

    def _look(self, given: Descriptors, written: bool) -> None:
        """Take unusual descriptors, or say what is wrong: for native code."""
        options = self._connection._engine.options
        self._items = _checked(given, options.max_descriptors, written=written)
        self._descriptors, self._local = _gathered(self._items)
        if written and within(self._local.regions) is not None:
            refuse_within("local_descriptors", self._local.regions)
        for descriptor in self._descriptors:
            descriptor._last_used = self._connection._reference

    def _begin_blocking(self) -> None:
        """Begin on the caller's thread, once the descriptors' streams are done.

        It has been tried before where there are none, and was not ordinary.
        """
        fence = self._fence()
        if fence is not None:
            fence.wait(Permit(self._timeout))
        if fence is None or not self._try_again():
            self._begin(Permit(self._timeout))

    def _try_again(self) -> bool:
        """Begin, where all is ordinary now that the streams are done; return whether it has."""
        try:
            return self._begin_at_once()
        except RefusedError as error:
            raise refusal(error) from None

    def _begun(self) -> Operation:
        if self._native is None:
            raise StateError(f"{type(self).__name__} has not begun")
        return self._native

    @abstractmethod
    def _begin_at_once(self) -> bool:
        """Register and start, if all is ordinary; else leave it to `_begin`. Takes no time."""

    @abstractmethod
    def _begin(self, permit: Permit) -> None:
        """Register and start. May take long, if the permit allows it."""

    @property
    def _peer_name(self) -> str:
        return ""

    def _error(self, native: Operation) -> NixlConnectError:
        """Return why it has ended otherwise than complete."""
        return error_of(native, repr(self), self._peer_name, self._timeout)

    def __enter__(self: _Self) -> _Self:  # noqa: PYI019
        if self._released:
            raise StateError(f"{type(self).__name__} has been released; make a new operation")
        return self

    def __exit__(self, *exception: object) -> None:
        self._released = True
        if self._native is not None and not self._connection._engine.forked:
            self.cancel()

    async def __aenter__(self: _Self) -> _Self:  # noqa: PYI019
        return self.__enter__()

    async def __aexit__(self, *exception: object) -> None:
        self.__exit__()

    def __reduce__(self) -> Any:
        raise TypeError("an operation cannot be copied or pickled; send its metadata()")

    def __repr__(self) -> str:
        peer = f", peer={self._peer_name!r}" if self._peer_name else ""
        return (
            f"{type(self).__name__}({self.status}, {len(self._local.regions)} x "
            f"{self._descriptors[0].device}, {self._local.regions.nbytes} bytes{peer})"
        )


def _gathered(items: list[Descriptor | Blocks]) -> tuple[list[Descriptor], Local]:
    """Return the descriptors, or what blocks are of, and what an operation needs of all."""
    descriptors = [item if isinstance(item, Descriptor) else item.descriptor for item in items]
    registered = Regions([item._row for item in descriptors])
    regions = registered
    if any(isinstance(item, Blocks) for item in items):
        regions = Regions.join(
            [
                Regions([registered[i]]) if isinstance(item, Descriptor) else item._regions
                for i, item in enumerate(items)
            ]
        )
    return descriptors, Local(
        regions, registered, descriptors[0]._mem_type, [item._hold for item in descriptors]
    )


def _checked(descriptors: Descriptors, limit: int, *, written: bool) -> list[Descriptor | Blocks]:
    """Return the descriptors as a list, all of one kind, and writable if they are `written`."""
    items: list[Descriptor | Blocks]
    if isinstance(descriptors, (Descriptor, Blocks)):
        items = [descriptors]
    elif isinstance(descriptors, (list, tuple)):
        items = list(descriptors)
    else:
        raise ArgumentTypeError(
            f"local_descriptors must be a Descriptor or a list of them, "
            f"not {type(descriptors).__name__}"
        )
    if not items:
        raise ArgumentError("local_descriptors must not be empty")
    count = sum(_count(i, item) for i, item in enumerate(items))
    if count > limit:
        raise ArgumentError(
            f"local_descriptors has {count} descriptors; max_descriptors is {limit}"
        )
    kind = items[0].device.kind
    for i, item in enumerate(items):
        memory = (item if isinstance(item, Descriptor) else item.descriptor)._memory
        if memory.device.kind is not kind:
            raise ArgumentError(
                f"local_descriptors[{i}] is on {memory.device}, but the first is on "
                f"{items[0].device}; one operation takes memory of one kind"
            )
        fault = ""
        if memory.bare:
            size = (item if isinstance(item, Descriptor) else item.descriptor).size
            fault = mapped.refusal(memory, size, written=written)
        if written and (memory.readonly or fault == mapped.READ_ONLY):
            raise ArgumentError(
                f"local_descriptors[{i}] is read-only memory, so nothing can be received in it"
            )
        if fault:
            raise ArgumentError(
                f"local_descriptors[{i}] names memory that is {fault}: {size} bytes from "
                f"{memory.pointer:#x}"
            )
    return items


def _count(i: int, item: object) -> int:
    """Return for how many descriptors one of those given stands."""
    if isinstance(item, Descriptor):
        return 1
    if not isinstance(item, Blocks):
        raise ArgumentTypeError(
            f"local_descriptors[{i}] must be a Descriptor or Blocks, not {type(item).__name__}"
        )
    if not item._within():
        raise ArgumentError(f"local_descriptors[{i}]: {item!r} leave it, which was shrunk")
    return len(item)


LOST = (
    "failed: the connection to the peer broke, or could not be made: its process ended, it "
    "withdrew the memory, or its host cannot be reached (UCX_NET_DEVICES names the interfaces to "
    "use)"
)
"""What is known of a transfer whose peer was lost, and what may be behind it."""

_FAILURES: dict[int, tuple[type[NixlConnectError], str]] = {
    Reason.LOCAL: (OperationCancelledError, "was cancelled"),
    Reason.CLOSED: (OperationCancelledError, "was cancelled: the connector closed"),
    Reason.PEER_CANCELLED: (OperationCancelledError, "was cancelled by the peer"),
    Reason.TIMEOUT: (TransferTimeoutError, "did not end before its deadline"),
    Reason.PEER_LOST: (PeerLostError, LOST),
    Reason.MOVER_LOST: (
        PeerLostError,
        "failed: who was moving its bytes, process or connector, has ended",
    ),
    Reason.MOVER_SILENT: (
        PeerLostError,
        "failed: who was moving its bytes, on another host, has said nothing for peer_silence",
    ),
    Reason.PEER_FAILED: (TransferError, "failed: the peer reports that its transfer failed"),
    Reason.NOT_TOLD: (TransferError, "moved its data, but the peer could not be told"),
    Reason.TRANSFER: (TransferError, "failed"),
}


def local_failure(what: str, fault: str, error: int, peer: str) -> TransferError:
    """Return the error of a transfer, `what`, whose local memory has a fault."""
    status = status_name(error)
    return TransferError(
        f"{what} failed: local memory is {fault} (NIXL: {status})", status=status, peer=peer
    )


def error_of(native: Operation, what: str, peer: str, timeout: float) -> NixlConnectError:
    """Return the error of an operation, `what`, that ended otherwise than complete."""
    if native.reason not in _FAILURES:
        raise InternalError(f"{what} ended with status {native.status} for no reason")
    kind, text = _FAILURES[native.reason]
    status = status_name(native.error) if native.error else ""
    message = f"{what} {text}"
    if native.reason == Reason.TIMEOUT:
        message += f" of {timeout:g} s"
    if status:
        message += f" (NIXL: {status})"
    if issubclass(kind, TransferError):
        return kind(message, status=status, peer=peer)
    return kind(message)

"""The passive operations: memory that a peer reads or writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from nixl_connect._native.agent import AgentClosedError
from nixl_connect._native.capi import NativeError
from nixl_connect._native.handle import Offer
from nixl_connect._native.hold import Hold
from nixl_connect._native.operation import Reason
from nixl_connect._native.packing import Regions
from nixl_connect._native.registry import RefusedError
from nixl_connect.checks import count, instance, seconds
from nixl_connect.engine.connection import Connection
from nixl_connect.errors import ArgumentTypeError, NixlConnectError, StateError
from nixl_connect.memory.blocks import Blocks
from nixl_connect.memory.descriptor import SerializedDescriptor
from nixl_connect.memory.device import Device
from nixl_connect.memory.tables import FEW, BlockDescriptors, DescriptorTable, Group, RowDescriptors
from nixl_connect.operations import lost
from nixl_connect.operations.base import AbstractOperation, Descriptors
from nixl_connect.peers.registrations import refusal
from nixl_connect.permit import Permit
from nixl_connect.status import OperationKind, OperationStatus
from nixl_connect.wire.metadata import RdmaMetadata

_PEERS_REASONS = (Reason.PEER_CANCELLED, Reason.PEER_FAILED)


class PassiveOperation(Offer, AbstractOperation):
    """Memory that is offered for a peer's transfer."""

    _written: ClassVar[bool]
    """Whether the peer writes; else it reads."""
    _told: RdmaMetadata | None
    _told_in_hex: RdmaMetadata | None

    if TYPE_CHECKING:  # native

        def _plain(self, most: int) -> list[SerializedDescriptor] | None: ...

    def __init__(
        self,
        connection: Connection,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        transfers: int | None = 1,
        _patient: bool = True,
    ) -> None:
        if type(connection) is not Connection:
            instance("connection", connection, Connection)
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        elif transfers is None:
            timeout = math.inf
        number = 1
        if transfers != 1 or type(transfers) is not int:
            number = 0 if transfers is None else count("transfers", transfers)
        try:
            begun = self._make(connection, local_descriptors, timeout, self._written, number)
        except RefusedError as error:
            raise refusal(error) from None
        if not begun and _patient:
            self._begin_blocking()

    def _begin(self, permit: Permit) -> None:
        engine = self._connection._engine
        seal = engine.options.seal
        hold = Hold(engine.registry, self._local.memory, self._local.regions.nbytes)
        try:
            engine.starter.register(hold, self._local, permit)
            if seal is not None:
                # The seal is in the notification key, which has to be known from the start.
                self._stream = engine.describe(hold, self._local.mem_type)
                self._notification_key = seal.seal(
                    self._notification_key,
                    int(self._kind),
                    self._stream,
                    self._serialized(),
                    # Who comes late to an offer to many is as welcome as who comes first.
                    None if self._transfers == 1 else self._timeout,
                )
            self._native = engine.starter.listen(
                hold,
                self._notification_key.encode(),
                self._timeout,
                writable=self._written,
                transfers=self._transfers,
            )
        except BaseException:
            hold.release()  # whatever keeps this frame alive
            raise
        self._hold = hold

    def _serialized(self) -> list[SerializedDescriptor] | DescriptorTable:
        """Return the descriptors as they were when the operation was made, whatever they are."""
        rows = self._local.registered
        if self._local.regions is not rows:
            return BlockDescriptors(
                [
                    item._group() if isinstance(item, Blocks) else _group_of(item.device, rows[i])
                    for i, item in enumerate(self._items)
                ],
                [
                    item._regions if isinstance(item, Blocks) else Regions([rows[i]])
                    for i, item in enumerate(self._items)
                ],
            )
        if len(rows) > FEW:
            kind = str(self._descriptors[0].device.kind)
            return RowDescriptors(kind if kind == "cpu" else f"{kind}:", rows)
        return [
            SerializedDescriptor(device=str(item.device), ptr=rows[i][0], size=rows[i][1])
            for i, item in enumerate(self._descriptors)
        ]

    def metadata(self, hex_encode: bool = False) -> RdmaMetadata:
        """Return what the active side needs. Describes this operation's memory and nothing else.

        Created once and then kept.

        Parameters
        ----------
        hex_encode : bool
            Use the older hexadecimal form instead of base64.

        Raises
        ------
        StateError
            The operation ended before its metadata was created.
        ClosedError
            The parent process made the operation.
        """
        hex_encode = bool(hex_encode)
        made = self._told_in_hex if hex_encode else self._told
        # What was handed out before, too: the memory that it names is the parent's.
        if made is None or self._connection._engine.forked:
            try:
                text = self._text(hex_encode)
            except (AgentClosedError, NativeError) as error:
                raise self._connection._engine.undescribed(error) from None
            if text is None:
                raise self._refused_text()
            made = RdmaMetadata(
                nixl_metadata=text,
                descriptors=self._plain(FEW) or self._serialized(),
                notification_key=self._notification_key,
                operation_kind=int(self._kind),
            )
            if hex_encode:
                self._told_in_hex = made
            else:
                self._told = made
        return made

    @property
    def transfers_done(self) -> int:
        """How many transfers with this memory have completed."""
        if self._transfers == 1:
            return int(self.status is OperationStatus.COMPLETE)
        return self._counted(0)

    @property
    def transfers_failed(self) -> int:
        """How many transfers with this memory failed, or were cancelled by their side.

        Of an offer to many (`transfers`), they neither count nor end it.
        """
        if self._transfers == 1:
            native = self._native
            return int(native is not None and native.reason in _PEERS_REASONS)
        return self._counted(1)

    def _counted(self, i: int) -> int:
        self._connection._engine.refuse_after_fork()
        return 0 if self._native is None else self._native.transfers[i]

    def finish(self) -> None:
        """End the operation as complete. Does nothing if it has ended.

        For offers to many (`transfers`): waiters return, and the memory is kept for the
        connector's `quarantine`, since peers that know it may still read or write. Those may
        complete, fail, or be refused.

        Raises
        ------
        StateError
            The operation is for one transfer, and only that completes it.
        """
        if self._transfers == 1:
            raise StateError(f"{self!r} is for one transfer: cancel it")
        self._connection._engine.finish(self._begun())

    def keep(self, on_end: Callable[[Any], object] | None = None) -> None:
        """Have the connector keep the operation until it ends, so that nobody has to.

        It goes on without a task or a variable that refers to it. `cancel()`, leaving ``with`` and
        closing the connector end it as ever.

        Parameters
        ----------
        on_end : callable, optional
            Called with the operation when it has ended, however that was: on the event loop that
            runs now; or, where none does, on a thread of the connector, within a tenth of a second
            or so. What it raises is logged. Without it, an end other than COMPLETE is logged as a
            warning.

        Raises
        ------
        StateError
            It is kept already.
        """
        if on_end is not None and not callable(on_end):
            raise ArgumentTypeError(f"on_end must be callable, not {type(on_end).__name__}")
        self._connection._engine.keep(self, self._begun(), on_end)

    def _refused_text(self) -> NixlConnectError:
        """Return why there is no metadata to hand out."""
        native, engine = self._begun(), self._connection._engine
        engine.refuse_after_fork()
        if self._hold is None or native.has_ended:
            return StateError(f"{self!r} has ended, so there is no metadata to hand out")
        return engine.undescribed()


if lost.WANTED:
    lost.watch(PassiveOperation)


def _group_of(device: Device, row: tuple[int, int, int]) -> Group:
    """Return a region as a group of one block."""
    return Group(str(device), row[0], row[1], row[1], 4, bytes(4))


class ReadableOperation(PassiveOperation):
    """Memory that a peer may read.

    Parameters
    ----------
    connection : Connection
        Connection to use.
    local_descriptors : Descriptor, Blocks or a sequence of these
        The memory, which must all be of one kind.
    timeout : float, optional
        Seconds after which the operation fails; by default the connector's `timeout`, infinity for
        no deadline.
    transfers : int, optional
        How many transfers complete it; None for any number, until `finish`.
    """

    _kind = OperationKind.READ
    _written = False


class WritableOperation(PassiveOperation):
    """Memory that a peer may write to. Takes the parameters of `ReadableOperation`.

    Raises
    ------
    ArgumentTypeError
        An argument is of the wrong type. Also a TypeError.
    ArgumentError, RegistrationError, QuarantineError
        As for `Connector.create_writable`.
    """

    _kind = OperationKind.WRITE
    _written = True

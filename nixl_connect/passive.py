"""The passive operations: memory that a peer reads or writes."""

from __future__ import annotations

import os

from nixl_connect._native.hold import Hold
from nixl_connect._native.packing import Regions
from nixl_connect._native.registry import RefusedError
from nixl_connect._native.span import are_unchanged
from nixl_connect._native.text import text_of
from nixl_connect.base import AbstractOperation, Descriptors
from nixl_connect.blocks import Blocks
from nixl_connect.connection import Connection
from nixl_connect.device import Device
from nixl_connect.errors import StateError
from nixl_connect.metadata import RdmaMetadata
from nixl_connect.permit import Permit
from nixl_connect.region import SerializedDescriptor
from nixl_connect.registrations import refusal
from nixl_connect.status import OperationKind
from nixl_connect.tables import FEW, BlockDescriptors, DescriptorTable, Group, RowDescriptors


class PassiveOperation(AbstractOperation):
    """Memory that is offered for a peer's transfer."""

    def __init__(
        self,
        connection: Connection,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        _begin: bool = True,
    ) -> None:
        written = self._kind is OperationKind.WRITE
        super().__init__(connection, local_descriptors, timeout, written=written)
        self._notification_key = os.urandom(16).hex()
        self._hold: Hold | None = None
        self._stream: bytes | None = None
        self._metadata: dict[bool, RdmaMetadata] = {}
        if _begin:
            self._begin_blocking()

    def _begin_at_once(self) -> bool:
        engine = self._connection._engine
        if engine.options.seal is not None:
            return False  # it comes between
        key, writable = self._notification_key.encode(), self._kind is OperationKind.WRITE
        try:
            native = engine.starter.ordinary.offer(self._local, key, self._timeout, writable)
        except RefusedError as error:
            raise refusal(error) from None
        if native is None:
            return False
        self._native, self._hold = native, native.hold
        return True

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
                )
            self._native = engine.starter.listen(
                hold,
                self._notification_key.encode(),
                self._timeout,
                writable=self._kind is OperationKind.WRITE,
            )
        except BaseException:
            hold.release()  # whatever keeps this frame alive
            raise
        self._hold = hold

    def _serialized(self) -> list[SerializedDescriptor] | DescriptorTable:
        """Return the descriptors as they were when the operation was made."""
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
        if are_unchanged(self._descriptors, rows):
            return [item.metadata for item in self._descriptors]
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
        native = self._native or self._begun()
        # What was handed out before, too: the memory that it names is the parent's.
        engine = self._connection._engine
        if engine.forked:
            engine.refuse_after_fork()
        hex_encode = bool(hex_encode)
        made = self._metadata.get(hex_encode)
        if made is None:
            if self._hold is None or not native.expose():
                raise StateError(f"{self!r} has ended, so there is no metadata to hand out")
            if self._stream is None:
                self._stream = engine.describe(self._hold, self._local.mem_type)
            made = self._metadata[hex_encode] = RdmaMetadata(
                descriptors=self._serialized(),
                nixl_metadata=self._stream.hex() if hex_encode else text_of(self._stream),
                notification_key=self._notification_key,
                operation_kind=int(self._kind),
            )
        return made


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
    """

    _kind = OperationKind.READ


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

"""The active operations: transfers from or to a peer's memory."""

from __future__ import annotations

from collections.abc import Sequence

from nixl_connect._native.packing import Regions
from nixl_connect.base import AbstractOperation
from nixl_connect.connection import Connection, Remote, parse_nixl_metadata
from nixl_connect.descriptor import Descriptor
from nixl_connect.device import Device
from nixl_connect.errors import (
    ArgumentError,
    ArgumentTypeError,
    MetadataError,
    PairingError,
    StateError,
)
from nixl_connect.metadata import RdmaMetadata, decode_nixl_metadata
from nixl_connect.permit import Permit
from nixl_connect.regions import Target
from nixl_connect.status import OperationKind, OperationStatus


class ActiveOperation(AbstractOperation):
    """A transfer from or to a peer's memory."""

    def __init__(
        self,
        connection: Connection,
        local_descriptors: Descriptor | Sequence[Descriptor],
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
        _begin: bool = True,
    ) -> None:
        if not isinstance(remote_metadata, RdmaMetadata):
            raise ArgumentTypeError(
                f"remote_metadata must be RdmaMetadata, not {type(remote_metadata).__name__}"
            )
        written = self._kind is OperationKind.READ
        super().__init__(connection, local_descriptors, timeout, written=written)
        options = connection._engine.options
        self._check_pairing(remote_metadata)
        try:
            key = remote_metadata.notification_key.encode()
        except UnicodeEncodeError as error:
            raise MetadataError(f"remote_metadata: notification_key: {error}") from None
        if not key:
            raise MetadataError("remote_metadata: notification_key must not be empty")
        if options.seal is not None:
            options.seal.check(remote_metadata)
        regions, device = _remote_regions(remote_metadata, self._local.rows)
        blob = decode_nixl_metadata(remote_metadata.nixl_metadata, options.max_metadata_bytes)
        described = parse_nixl_metadata(blob)
        self._target = Target(regions, device.mem_type, described, blob, key)
        if _begin:
            self._begin(Permit())

    def _check_pairing(self, metadata: RdmaMetadata) -> None:
        if metadata.operation_kind != self._kind:
            theirs = {1: "a readable operation", 2: "a writable operation"}.get(
                metadata.operation_kind, "no operation"
            )
            raise PairingError(
                f"{type(self).__name__} needs the metadata of a "
                f"{'readable' if self._kind is OperationKind.READ else 'writable'} operation, "
                f"but this is of {theirs}"
            )

    def _is_quick(self) -> bool:
        return self._connection._engine.is_quick(self._local.rows, self._target.described)

    def _begin(self, permit: Permit) -> None:
        self._native = self._connection._engine.transfer(
            int(self._kind) - 1, self._local, self._target, self._timeout, permit
        )

    @property
    def remote(self) -> Remote:
        """The peer."""
        return Remote._known(self._connection, self._target.described.agent)

    @property
    def _peer_name(self) -> str:
        return self._target.described.agent


class ReadOperation(ActiveOperation):
    """A transfer from a peer's memory to local memory.

    Parameters
    ----------
    connection : Connection
        Where to make it.
    remote_metadata : RdmaMetadata
        That of the peer's readable operation.
    local_descriptors : Descriptor or sequence of Descriptor
        Where to put the data: as many as the peer has, each of the same size.
    timeout : float, optional
        Seconds after which the operation fails; the connector's default if not given, infinity for
        never.
    """

    _kind = OperationKind.READ

    def __init__(
        self,
        connection: Connection,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptor | Sequence[Descriptor],
        *,
        timeout: float | None = None,
        _begin: bool = True,
    ) -> None:
        super().__init__(
            connection, local_descriptors, remote_metadata, timeout=timeout, _begin=_begin
        )

    def results(self) -> list[Descriptor]:
        """Return the local descriptors, whose memory now holds the data.

        Raises
        ------
        StateError
            The operation is not complete. A RuntimeError.
        """
        if self.status is not OperationStatus.COMPLETE:
            raise StateError(f"{self!r} is not complete, so it has no results")
        return list(self._descriptors)


class WriteOperation(ActiveOperation):
    """A transfer from local memory to a peer's memory.

    Parameters
    ----------
    connection : Connection
        Where to make it.
    local_descriptors : Descriptor or sequence of Descriptor
        The data: as many as the peer has, each of the same size.
    remote_metadata : RdmaMetadata
        That of the peer's writable operation.
    timeout : float, optional
        As for `ReadOperation`.
    """

    _kind = OperationKind.WRITE


def _remote_regions(
    metadata: RdmaMetadata, local: list[tuple[int, int, Device]]
) -> tuple[Regions, Device]:
    """Return the peer's regions, which must match the local ones, and the first one's device."""
    remote = metadata.descriptors
    if len(remote) != len(local):
        raise ArgumentError(
            f"local_descriptors has {len(local)}, but the peer's metadata has {len(remote)}"
        )
    devices = [Device(item.device) for item in remote]
    for i, ((_, size, _), theirs) in enumerate(zip(local, remote, strict=True)):
        if size != theirs.size:
            raise ArgumentError(
                f"local_descriptors[{i}] has {size} bytes, but the peer's has {theirs.size}"
            )
        if devices[i].kind is not devices[0].kind:
            raise MetadataError("remote_metadata: descriptors of more than one kind of memory")
    return (
        Regions([(item.ptr, item.size, at.id) for item, at in zip(remote, devices, strict=True)]),
        devices[0],
    )

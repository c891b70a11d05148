"""The active operations: transfers from or to a peer's memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

from nixl_connect._native import readers
from nixl_connect._native.envelope import names
from nixl_connect._native.handle import Transfer
from nixl_connect._native.operation import Operation, Reason
from nixl_connect._native.overlaps import within
from nixl_connect._native.packing import Regions, coalesce
from nixl_connect._native.plan import Local, Plan
from nixl_connect._native.registry import RefusedError
from nixl_connect.backend.agents import is_here
from nixl_connect.checks import instance, seconds
from nixl_connect.engine.connection import Connection, Remote
from nixl_connect.errors import (
    ArgumentError,
    ArgumentTypeError,
    MetadataError,
    NixlConnectError,
    PairingError,
    StateError,
)
from nixl_connect.memory import mapped
from nixl_connect.memory.blocks import Blocks
from nixl_connect.memory.descriptor import Descriptor, SerializedDescriptor
from nixl_connect.memory.device import HOST, Device
from nixl_connect.memory.overlaps import refuse_between, refuse_within
from nixl_connect.memory.tables import BlockDescriptors, DescriptorTable
from nixl_connect.operations.base import AbstractOperation, Descriptors, local_failure
from nixl_connect.operations.parts import Parts, rows_of
from nixl_connect.peers.registrations import refusal
from nixl_connect.permit import Permit
from nixl_connect.status import OperationKind, OperationStatus
from nixl_connect.wire.metadata import RdmaMetadata

# Most bytes of a notification key: it is sent as it is, and stands in logs.
_LONGEST_KEY = 4096
# What makes metadata of what it arrives as.
_PARSERS: dict[type, str] = {
    str: "model_validate_json",
    bytes: "model_validate_json, or from_bytes",
    dict: "model_validate",
}


class ActiveOperation(Transfer, AbstractOperation):
    """A transfer from or to a peer's memory."""

    def __init__(
        self,
        connection: Connection,
        local_descriptors: Descriptors,
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
        _begin: bool = True,
        _patient: bool = True,
    ) -> None:
        self._parts = parts
        if type(connection) is not Connection or type(remote_metadata) is not RdmaMetadata:
            _check_types(connection, remote_metadata)
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        kind = self._kind - 1  # NIXL's: 0 to read, 1 to write
        try:
            begun = self._make(
                connection,
                remote_metadata,
                local_descriptors,
                timeout,
                kind,
                _begin,
                parts is None,
            )
        except RefusedError as error:
            raise refusal(error) from None
        if not begun and _begin and _patient:
            self._begin_blocking()

    def _checked(self, remote_metadata: RdmaMetadata) -> Plan:
        """Return what the transfer is about, with a look at everything; or say what is wrong."""
        engine = self._connection._engine
        if remote_metadata.operation_kind != self._kind:
            self._refuse_pairing(remote_metadata)
        try:
            key = remote_metadata.notification_key.encode()
        except UnicodeEncodeError as error:
            raise MetadataError(f"remote_metadata: notification_key: {error}") from None
        if not 0 < len(key) <= _LONGEST_KEY:
            raise MetadataError(
                f"remote_metadata: notification_key must have 1 to {_LONGEST_KEY} bytes, "
                f"not {len(key)}"
            )
        if engine.options.seal is not None:
            engine.options.seal.check(remote_metadata)
        regions, device = _remote_regions(remote_metadata, self._local.regions, self._parts)
        blob, described = engine.starter.ordinary.described(remote_metadata.nixl_metadata)
        mem_type = device.mem_type
        if not names(described.sections, regions, mem_type):
            raise MetadataError(
                f"the descriptors name memory that peer {described.agent!r} did not register"
            )
        is_read = self._kind is OperationKind.READ
        if not is_read and within(regions) is not None:
            refuse_within("remote_metadata.descriptors", regions)
        # Of another process's memory the addresses say nothing, not even where it is shared.
        if is_here(described.connections) and device.kind is self._items[0].device.kind:
            refuse_between(self._local.regions, regions, is_read=is_read)
        local = self._local
        if (
            local.regions is not local.registered
            and isinstance(remote_metadata.descriptors, BlockDescriptors)
            and self._parts is None
        ):
            # Blocks that follow each other on both sides are one to NIXL, within what is registered
            # as one.
            edges = _edges(len(part.rows) for part in remote_metadata.descriptors.parts)
            edges |= _edges(len(x) if isinstance(x, Blocks) else 1 for x in self._items)
            mine, regions = coalesce(local.regions, regions, sorted(edges))
            local = Local(mine, local.registered, local.mem_type, local.memory)
        return Plan(self._kind - 1, local, regions, mem_type, described, blob, key, self._timeout)

    def _refuse_pairing(self, metadata: RdmaMetadata) -> None:
        theirs = {1: "a readable operation", 2: "a writable operation"}.get(
            metadata.operation_kind, "no operation"
        )
        raise PairingError(
            f"{type(self).__name__} needs the metadata of a "
            f"{'readable' if self._kind is OperationKind.READ else 'writable'} operation, "
            f"but this is of {theirs}"
        )

    def _begin(self, permit: Permit) -> None:
        self._native = self._connection._engine.starter.transfer(self._plan, permit)

    @property
    def remote(self) -> Remote:
        """The peer."""
        return Remote._known(self._connection, self._plan.described.agent)

    @property
    def _peer_name(self) -> str:
        return self._plan.described.agent

    def _local_fault(self) -> str:
        """Return what is wrong with the local memory, now that a transfer has failed, if it is."""
        local = self._plan.local
        if local.mem_type != HOST.mem_type:
            return ""
        return mapped.fault(local.regions, written=self._kind is OperationKind.READ)

    def _error(self, native: Operation) -> NixlConnectError:
        if native.reason in (Reason.PEER_LOST, Reason.TRANSFER):
            fault = self._local_fault()
            if fault:
                return local_failure(repr(self), fault, native.error, self._peer_name)
        return super()._error(native)


class ReadOperation(ActiveOperation):
    """A transfer from a peer's memory to local memory.

    Parameters
    ----------
    connection : Connection
        Connection to use.
    remote_metadata : RdmaMetadata
        Metadata of the peer's readable operation.
    local_descriptors : Descriptor, Blocks or a sequence of these
        Where to put the data: as many descriptors as the peer has, of the same sizes.
    timeout : float, optional
        Seconds after which the operation fails; by default the connector's `timeout`, infinity for
        no deadline.
    parts : sequence of int or of (int, int, int), optional
        As for `Connector.begin_read`.
    """

    _kind = OperationKind.READ

    def __init__(
        self,
        connection: Connection,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
        _begin: bool = True,
        _patient: bool = True,
    ) -> None:
        super().__init__(
            connection,
            local_descriptors,
            remote_metadata,
            timeout=timeout,
            parts=parts,
            _begin=_begin,
            _patient=_patient,
        )

    def results(self) -> list[Descriptor | Blocks]:
        """Return the local descriptors as they were given. Their memory now holds the data.

        Raises
        ------
        StateError
            The operation is not complete. Also a RuntimeError.
        """
        if self.status is not OperationStatus.COMPLETE:
            raise StateError(f"{self!r} is not complete, so it has no results")
        return list(self._items)


class WriteOperation(ActiveOperation):
    """A transfer from local memory to a peer's memory.

    Parameters
    ----------
    connection : Connection
        Connection to use.
    local_descriptors : Descriptor, Blocks or a sequence of these
        The data: as many descriptors as the peer has, of the same sizes.
    remote_metadata : RdmaMetadata
        Metadata of the peer's writable operation.
    timeout, parts : optional
        As for `ReadOperation`.

    Raises
    ------
    ArgumentTypeError
        An argument is of the wrong type. Also a TypeError.
    PairingError
        The metadata is not from a writable operation. Also a ValueError and a RuntimeError.
    MetadataError, AuthenticationError, ArgumentError, TransferError
        As for `Connector.begin_read`.
    """

    _kind = OperationKind.WRITE


def _check_types(connection: object, remote_metadata: object) -> None:
    """Raise ArgumentTypeError where a constructor was given something else."""
    if not isinstance(remote_metadata, RdmaMetadata):
        parser = _PARSERS.get(type(remote_metadata))
        hint = "" if parser is None else f"; parse it with RdmaMetadata.{parser}"
        raise ArgumentTypeError(
            f"remote_metadata must be RdmaMetadata, not {type(remote_metadata).__name__}{hint}"
        )
    instance("connection", connection, Connection)


def _remote_regions(
    metadata: RdmaMetadata, local: Regions, parts: Parts | None
) -> tuple[Regions, Device]:
    """Return the peer's regions, which must match the local ones, and the first one's device."""
    remote = metadata.descriptors
    if not len(remote):
        raise MetadataError("remote_metadata has no descriptors")
    if parts is not None:
        return _parts_of(remote, local, parts)
    if len(remote) != len(local):
        raise ArgumentError(
            f"local_descriptors has {len(local)} descriptors, "
            f"but the peer's metadata has {len(remote)}"
        )
    plain = readers.of_list(remote) if type(remote) is list else None
    if plain is not None:
        regions = plain[1]
        device = _device(remote[0].device)
    else:
        regions, device = _checked_regions(remote, local)
    i = local.mismatch(regions)
    if i >= 0:
        raise ArgumentError(
            f"local_descriptors[{i}] has {local[i][1]} bytes, but the peer's has {regions[i][1]}"
        )
    return regions, device


def _parts_of(
    remote: list[SerializedDescriptor] | DescriptorTable, local: Regions, parts: Parts
) -> tuple[Regions, Device]:
    """Do the same for parts of a peer's regions."""
    whole, device = _checked_regions(remote, None)
    rows = rows_of(parts, len(whole), lambda i: whole[i][1])
    if len(rows) != len(local):
        raise ArgumentError(
            f"local_descriptors has {len(local)} descriptors, but parts has {len(rows)}"
        )
    regions = Regions([(whole[i][0] + offset, length, whole[i][2]) for i, offset, length in rows])
    i = local.mismatch(regions)
    if i >= 0:
        raise ArgumentError(
            f"local_descriptors[{i}] has {local[i][1]} bytes, but parts[{i}] has {regions[i][1]}"
        )
    return regions, device


def _checked_regions(
    remote: list[SerializedDescriptor] | DescriptorTable, local: Regions | None
) -> tuple[Regions, Device]:
    """Do the same for tables, and for lists with which something may be wrong.

    Without `local` regions nothing has to match.
    """
    if isinstance(remote, DescriptorTable):
        devices = [_device(name) for name in remote.devices]
    else:
        devices = [_device(item.device) for item in remote]
        empty = next((i for i, item in enumerate(remote) if item.size == 0), None)
        if empty is not None and local is not None:
            raise ArgumentError(
                f"local_descriptors[{empty}] has {local[empty][1]} bytes, but the peer's has 0"
            )
    try:
        if isinstance(remote, DescriptorTable):
            regions = remote.regions
        else:
            pairs = zip(remote, devices, strict=True)
            regions = Regions([(item.ptr, item.size, device.id) for item, device in pairs])
    except ValueError as error:
        raise MetadataError(f"remote_metadata.descriptors: {error}") from None
    if any(device.kind is not devices[0].kind for device in devices):
        raise MetadataError("remote_metadata: descriptors of more than one kind of memory")
    return regions, devices[0]


def _edges(counts: Iterable[int]) -> set[int]:
    """Return the numbers of the rows at which another group begins."""
    return set(itertools.accumulate(counts))


# Devices are few, and parsing is not free.
_device = functools.lru_cache(maxsize=64)(Device)

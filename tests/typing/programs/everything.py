"""What type checkers make of every public name. Checked, not run; see tests/test_types.py.

Names of parameters stand for instances: each public member of a class has to be used on one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from typing_extensions import assert_type

import nixl_connect as nc
from nixl_connect import arrays
from nixl_connect.engine.statistics import (
    EndedFigures,
    LibraryFigures,
    OperationFigures,
    PeerFigures,
    Statistics,
)
from nixl_connect.memory.tables import DescriptorTable

assert_type(nc.__version__, str)


def a_connector(connector: nc.Connector) -> None:
    assert_type(nc.Connector(), nc.Connector)
    nc.Connector("worker", keys=b"0123456789abcdef", timeout=1, backends=["UCX"])
    nc.Connector(keys=[b"0123456789abcdef"], backends={"UCX": {"ucx_devices": "mlx5_0"}})
    nc.Connector(
        worker_id=None,
        seal_lifetime=1.5,
        quarantine=0,
        drain=0,
        progress_interval=0,
        peer_silence=3,
        max_descriptors=1,
        max_metadata_bytes=1,
        max_peer_regions=1,
        max_quarantine_bytes=1,
    )
    assert_type(connector.name, str)
    assert_type(connector.hostname, str)
    assert_type(connector.is_cuda_available, bool)
    assert_type(connector.operations(), list[nc.OperationReport])
    assert_type(connector.operations(min_age=1.0), list[nc.OperationReport])
    assert_type(connector.operations(limit=10), list[nc.OperationReport])
    assert_type(connector.peers(), list[nc.PeerReport])
    assert_type({connector: 1}, dict[nc.Connector, int])
    with connector as entered:
        assert_type(entered, nc.Connector)
    connector.close_blocking()


async def coroutines_of_a_connector(
    connector: nc.Connector, memory: nc.Descriptor, metadata: nc.RdmaMetadata
) -> None:
    async with connector as entered:
        assert_type(entered, nc.Connector)
    await connector.initialize()
    await connector.warmup()
    assert_type(await connector.open(), nc.Connector)
    assert_type(connector.open_blocking(), nc.Connector)
    assert_type(nc.Remote.decode_metadata("b64:"), bytes)
    assert_type(await connector.create_readable(memory), nc.ReadableOperation)
    assert_type(await connector.create_writable([memory], timeout=1), nc.WritableOperation)
    assert_type(await connector.begin_read(metadata, memory), nc.ReadOperation)
    assert_type(await connector.begin_write(memory, metadata), nc.WriteOperation)
    assert_type(await connector.prepare_read(metadata, memory), nc.PreparedRead)
    assert_type(await connector.prepare_write(memory, metadata), nc.PreparedWrite)
    connection = await connector._create_connection()  # pyright: ignore[reportPrivateUsage]
    assert_type(connection, nc.Connection)
    async with await connector.create_readable(memory) as readable:
        assert_type(readable, nc.ReadableOperation)
    async with await connector.create_writable(memory) as writable:
        assert_type(writable, nc.WritableOperation)
    async with await connector.begin_read(metadata, memory, timeout=0.5) as read:
        assert_type(read, nc.ReadOperation)
    async with await connector.begin_write(memory, metadata, timeout=0.5) as write:
        assert_type(write, nc.WriteOperation)
    async with await connector.prepare_read(metadata, memory, timeout=0.5) as prepared_read:
        assert_type(prepared_read, nc.PreparedRead)
    async with await connector.prepare_write(memory, metadata, timeout=0.5) as prepared_write:
        assert_type(prepared_write, nc.PreparedWrite)
    await connector.close()


def blocking_twins(
    connector: nc.Connector, memory: nc.Descriptor, metadata: nc.RdmaMetadata
) -> None:
    assert_type(connector.create_readable_blocking(memory), nc.ReadableOperation)
    assert_type(connector.create_writable_blocking([memory], timeout=1), nc.WritableOperation)
    assert_type(connector.begin_read_blocking(metadata, memory), nc.ReadOperation)
    assert_type(connector.begin_write_blocking(memory, metadata), nc.WriteOperation)
    assert_type(connector.prepare_read_blocking(metadata, memory), nc.PreparedRead)
    assert_type(connector.prepare_write_blocking(memory, metadata), nc.PreparedWrite)
    with connector.begin_read_blocking(metadata, memory, timeout=1) as read:
        assert_type(read, nc.ReadOperation)
    with connector.prepare_write_blocking(memory, metadata, timeout=1) as write:
        assert_type(write, nc.PreparedWrite)


def figures(connector: nc.Connector) -> None:
    stats = connector.stats()
    assert_type(stats, Statistics)
    assert_type(stats["operations"], OperationFigures)
    assert_type(stats["operations"]["held_bytes"], int)
    assert_type(stats["ended"]["read"], EndedFigures)
    assert_type(stats["ended"]["read"]["durations"], list[int])
    assert_type(stats["peers"], PeerFigures)
    assert_type(stats["library"], LibraryFigures)
    assert_type(stats["library"]["version"], str | None)
    assert_type(stats["duration_bounds"], list[float])


def what_operations_take(connector: nc.Connector, memory: nc.Descriptor, blocks: nc.Blocks) -> None:
    connector.create_readable_blocking(blocks)
    connector.create_readable_blocking([blocks, memory])
    connector.create_readable_blocking((memory, memory))
    several = [nc.Descriptor(bytearray(8)) for _ in range(3)]
    connector.create_readable_blocking(several)


async def any_operation(operation: nc.AbstractOperation) -> None:
    assert_type(operation.status, nc.OperationStatus)
    assert_type(operation.operation_kind, nc.OperationKind)
    assert_type(operation.connection, nc.Connection)
    operation.cancel()
    await operation.wait_for_completion()
    await operation.wait_for_completion(timeout=1)
    operation.wait_for_completion_blocking()
    operation.wait_for_completion_blocking(timeout=1.5)
    with operation as entered:
        assert_type(entered, nc.AbstractOperation)
    async with operation as entered:
        assert_type(entered, nc.AbstractOperation)
    operation.__exit__(None, None, None)


def passive_operations(
    operation: nc.PassiveOperation,
    readable: nc.ReadableOperation,
    writable: nc.WritableOperation,
    connection: nc.Connection,
    memory: nc.Descriptor,
) -> None:
    assert_type(operation.metadata(), nc.RdmaMetadata)
    assert_type(readable.metadata(hex_encode=True), nc.RdmaMetadata)
    assert_type(writable.metadata(), nc.RdmaMetadata)
    assert_type(nc.ReadableOperation(connection, memory), nc.ReadableOperation)
    assert_type(nc.WritableOperation(connection, [memory], timeout=1), nc.WritableOperation)
    assert_type(nc.ReadableOperation(connection, memory, transfers=None), nc.ReadableOperation)
    assert_type(operation.transfers_done, int)
    assert_type(operation.transfers_failed, int)
    operation.finish()
    operation.keep()
    operation.keep(on_end=print)
    both: list[nc.PassiveOperation] = [readable, writable]
    every: list[nc.AbstractOperation] = [*both]
    assert_type(every[0].status, nc.OperationStatus)
    with readable as one, writable as other:
        assert_type(one, nc.ReadableOperation)
        assert_type(other, nc.WritableOperation)


def active_operations(
    operation: nc.ActiveOperation,
    read: nc.ReadOperation,
    write: nc.WriteOperation,
    connection: nc.Connection,
    memory: nc.Descriptor,
    metadata: nc.RdmaMetadata,
) -> None:
    assert_type(operation.remote, nc.Remote)
    assert_type(read.remote, nc.Remote)
    assert_type(write.remote, nc.Remote)
    assert_type(read.results(), list[nc.Descriptor | nc.Blocks])
    assert_type(nc.ReadOperation(connection, metadata, memory), nc.ReadOperation)
    assert_type(nc.WriteOperation(connection, memory, metadata, timeout=1), nc.WriteOperation)
    both: list[nc.ActiveOperation] = [read, write]
    assert_type(both[0].remote.name, str)
    with read as one, write as other:
        assert_type(one, nc.ReadOperation)
        assert_type(other, nc.WriteOperation)


async def prepared_transfers(
    transfer: nc.PreparedTransfer, read: nc.PreparedRead, write: nc.PreparedWrite
) -> None:
    await transfer.transfer()
    await transfer.transfer(timeout=1)
    transfer.transfer_blocking()
    transfer.transfer_blocking(1.5)
    assert_type(transfer.connection, nc.Connection)
    assert_type(transfer.operation_kind, nc.OperationKind)
    assert_type(transfer.remote, nc.Remote)
    assert_type(transfer.closed, bool)
    assert_type(read.results(), list[nc.Descriptor | nc.Blocks])
    transfer.cancel()
    transfer.close()
    with read as one, write as other:
        assert_type(one, nc.PreparedRead)
        assert_type(other, nc.PreparedWrite)
    async with read as one, write as other:
        assert_type(one, nc.PreparedRead)
        assert_type(other, nc.PreparedWrite)


async def connections(
    connector: nc.Connector, connection: nc.Connection, remote: nc.Remote
) -> None:
    assert_type(nc.Connection(connector, 1), nc.Connection)
    assert_type(connection.connector.name, str)
    assert_type(connection.name, str)
    assert_type(connection.metadata, bytes)
    await connection.initialize()
    assert_type(nc.Remote(connection, connection.metadata), nc.Remote)
    assert_type(nc.Remote(connection, "b64:"), nc.Remote)
    assert_type(remote.connection, nc.Connection)
    assert_type(remote.name, str)
    with remote as entered:
        assert_type(entered, nc.Remote)


def a_descriptor(memory: nc.Descriptor, connector: nc.Connector, connection: nc.Connection) -> None:
    assert_type(memory.ptr, int)
    assert_type(memory.size, int)
    assert_type(memory.device, nc.Device)
    assert_type(memory.is_readonly, bool)
    assert_type(memory.is_registered, bool)
    assert_type(memory.metadata, nc.SerializedDescriptor)
    assert_type(memory.slice(0, 1), nc.Descriptor)
    assert_type(nc.Descriptor.from_serialized(memory.metadata), nc.Descriptor)
    memory.register_with_connector(connection)
    memory.deregister_with_connector(connection)
    memory.register_memory(connector)
    size = memory._data_size  # pyright: ignore[reportPrivateUsage]
    assert_type(size, int)
    memory._data_size = size // 2  # pyright: ignore[reportPrivateUsage]


def some_blocks(blocks: nc.Blocks) -> None:
    assert_type(blocks.descriptor, nc.Descriptor)
    assert_type(blocks.block_size, int)
    assert_type(blocks.size, int)
    assert_type(blocks.device, nc.Device)
    assert_type(len(blocks), int)


def a_device(device: nc.Device, kind: nc.DeviceKind) -> None:
    assert_type(nc.Device("cuda:1"), nc.Device)
    assert_type(nc.Device((nc.DeviceKind.CUDA, 1)), nc.Device)
    assert_type(device.kind, nc.DeviceKind)
    assert_type(device.id, int)
    assert_type(device.mem_type, int)
    assert_type(device == nc.Device("cpu"), bool)
    assert_type({device}, set[nc.Device])
    assert_type(kind.nixl_mem_type, str)
    assert_type(nc.DeviceKind(1), nc.DeviceKind)
    every: list[nc.DeviceKind] = [
        nc.DeviceKind.UNSPECIFIED,
        nc.DeviceKind.HOST,
        nc.DeviceKind.CUDA,
        nc.DeviceKind.XPU,
    ]
    value: int = every[0].value
    print(value)


def enumerations(status: nc.OperationStatus, kind: nc.OperationKind) -> None:
    assert_type(status.is_final, bool)
    assert_type(status > nc.OperationStatus.IN_PROGRESS, bool)
    assert_type(nc.OperationStatus(3), nc.OperationStatus)
    statuses: list[nc.OperationStatus] = [
        nc.OperationStatus.UNINITIALIZED,
        nc.OperationStatus.INITIALIZED,
        nc.OperationStatus.IN_PROGRESS,
        nc.OperationStatus.COMPLETE,
        nc.OperationStatus.CANCELLED,
        nc.OperationStatus.ERRORED,
    ]
    kinds: list[nc.OperationKind] = [
        nc.OperationKind.UNSPECIFIED,
        nc.OperationKind.READ,
        nc.OperationKind.WRITE,
    ]
    name: str = statuses[0].name
    print(name)
    assert_type(kinds[0] is kind, bool)


def metadata_of_an_operation(metadata: nc.RdmaMetadata, region: nc.SerializedDescriptor) -> None:
    nc.RdmaMetadata()
    nc.RdmaMetadata(
        descriptors=[region], nixl_metadata="", notification_key="mine", operation_kind=1
    )
    assert_type(metadata.descriptors, list[nc.SerializedDescriptor] | DescriptorTable)
    assert_type(metadata.descriptors[0], nc.SerializedDescriptor)
    assert_type([item.size for item in metadata.descriptors], list[int])
    assert_type(metadata.nixl_metadata, str)
    assert_type(metadata.notification_key, str)
    assert_type(metadata.operation_kind, int)
    assert_type(metadata.to_descriptors(), nc.Descriptor | list[nc.Descriptor])
    assert_type(metadata.to_bytes(), bytes)
    assert_type(nc.RdmaMetadata.from_bytes(metadata.to_bytes()), nc.RdmaMetadata)
    nc.RdmaMetadata.from_bytes(memoryview(b""))
    nc.RdmaMetadata.from_bytes(bytearray())
    assert_type(metadata.model_dump(), dict[str, Any])
    assert_type(metadata.model_dump(exclude={"descriptors"}, exclude_none=True), dict[str, Any])
    assert_type(metadata.model_dump_json(indent=2, include=["operation_kind"]), str)
    assert_type(metadata.model_copy(update={"notification_key": "mine"}), nc.RdmaMetadata)
    assert_type(nc.RdmaMetadata.model_validate({}, strict=True), nc.RdmaMetadata)
    assert_type(nc.RdmaMetadata.model_validate_json(b"{}"), nc.RdmaMetadata)
    assert_type(nc.RdmaMetadata.model_json_schema(), dict[str, Any])
    assert_type(metadata == metadata.model_copy(), bool)


def metadata_of_a_descriptor(region: nc.SerializedDescriptor) -> None:
    nc.SerializedDescriptor(device="cpu", ptr=1, size=1)
    assert_type(region.device, str)
    assert_type(region.ptr, int)
    assert_type(region.size, int)
    assert_type(region.to_descriptor(), nc.Descriptor)
    assert_type(region.model_dump(), dict[str, Any])
    assert_type(region.model_dump_json(), str)
    assert_type(region.model_copy(), nc.SerializedDescriptor)
    assert_type(nc.SerializedDescriptor.model_validate({}), nc.SerializedDescriptor)
    assert_type(nc.SerializedDescriptor.model_validate_json("{}"), nc.SerializedDescriptor)
    assert_type(nc.SerializedDescriptor.model_json_schema(), dict[str, Any])


async def a_pool(pool: nc.HostPool, connector: nc.Connector) -> None:
    assert_type(nc.HostPool(connector), nc.HostPool)
    nc.HostPool(connector, max_bytes=1 << 20, slab_bytes=1 << 20, pin=False)
    assert_type(await pool.acquire(10), nc.Lease)
    assert_type(pool.acquire_blocking(10, timeout=1), nc.Lease)
    with await pool.acquire(10, timeout=1) as lease:
        assert_type(lease, nc.Lease)
        assert_type(lease.descriptor.size, int)
    assert_type(pool.trim(), int)
    assert_type(pool.stats(), dict[str, int])
    with pool as entered:
        assert_type(entered, nc.HostPool)
    pool.close()


async def a_lease(lease: nc.Lease, array: bytearray) -> None:
    assert_type(lease.nbytes, int)
    assert_type(lease.descriptor, nc.Descriptor)
    assert_type(lease.view, memoryview)
    await lease.copy_from(array)
    await lease.copy_to(array, stream=-1, timeout=1)
    lease.copy_from_blocking(array, timeout=1)
    lease.copy_to_blocking(array)
    lease.release()
    with lease as entered:
        assert_type(entered, nc.Lease)


def a_report_of_a_peer(report: nc.PeerReport) -> None:
    assert_type(report.name, str)
    assert_type(report.regions, int)
    assert_type(report.in_flight, int)
    assert_type(report.idle, float)
    assert_type(report.near, bool)


def a_report(report: nc.OperationReport) -> None:
    assert_type(report.number, int)
    assert_type(report.kind, str)
    assert_type(report.phase, str)
    assert_type(report.nbytes, int)
    assert_type(report.age, float)
    assert_type(report.left, float)
    assert_type(report.peer, str)
    assert_type(report.transfers, int | None)
    assert_type(report.transfers_done, int)
    assert_type(report.transfers_failed, int)


def errors(transfer: nc.TransferError) -> None:
    """Each is caught as the built-in that its docstring names."""
    assert_type(transfer.status, str)
    assert_type(transfer.peer, str)
    nc.TransferError("failed", status="ERR_BACKEND", peer="other")
    base: type[nc.NixlConnectError]
    for base in (
        nc.ArgumentError,
        nc.ArgumentTypeError,
        nc.AuthenticationError,
        nc.BackendError,
        nc.ClosedError,
        nc.CudaError,
        nc.LibraryError,
        nc.MetadataError,
        nc.OperationCancelledError,
        nc.PairingError,
        nc.PeerLostError,
        nc.PoolExhaustedError,
        nc.PoolMemoryError,
        nc.QuarantineError,
        nc.RegistrationError,
        nc.StateError,
        nc.TransferTimeoutError,
        nc.WaitTimeoutError,
    ):
        base("text")
    value: list[type[ValueError]] = [nc.ArgumentError, nc.MetadataError, nc.PairingError]
    state: list[type[RuntimeError]] = [
        nc.BackendError,
        nc.ClosedError,
        nc.CudaError,
        nc.OperationCancelledError,
        nc.PairingError,
        nc.QuarantineError,
        nc.RegistrationError,
        nc.StateError,
        nc.TransferError,
    ]
    late: list[type[TimeoutError]] = [
        nc.PoolExhaustedError,
        nc.TransferTimeoutError,
        nc.WaitTimeoutError,
    ]
    others: tuple[
        type[TypeError],
        type[PermissionError],
        type[ImportError],
        type[ConnectionError],
        type[MemoryError],
    ] = (
        nc.ArgumentTypeError,
        nc.AuthenticationError,
        nc.LibraryError,
        nc.PeerLostError,
        nc.PoolMemoryError,
    )
    bug: type[Exception] = nc.InternalError
    print(value, state, late, others, bug)


def caught(operation: nc.ReadOperation) -> None:
    try:
        operation.wait_for_completion_blocking(1)
    except (nc.PeerLostError, nc.TransferTimeoutError) as error:
        assert_type(error.peer, str)
    except nc.TransferError as error:
        assert_type(error.status, str)


def named_arrays(connector: nc.Connector, pool: nc.HostPool) -> None:
    given = {"x": np.zeros(3), "y": {"z": bytearray(3)}}
    with arrays.offer_blocking(connector, given, timeout=1, transfers=None, copy=True) as offer:
        assert_type(offer, arrays.Offer)
        assert_type(offer.message(), str)
        assert_type(offer.message_bytes(), bytes)
        assert_type(offer.operation, nc.PassiveOperation)
        assert_type(offer.status, nc.OperationStatus)
        assert_type(offer.transfers_done + offer.transfers_failed, int)
        assert_type(offer.arrays, Any)
        offer.keep()
        offer.keep(on_end=lambda ended: print(ended.status))
        offer.wait_blocking(timeout=1)
        offer.close()
    got = arrays.fetch_blocking(connector, offer.message(), pool=pool, max_arrays=5)
    assert_type(got, Any)
    arrays.fetch_blocking(connector, b"", into=given, only=["x", "y.z"], timeout=1)
    arrays.expect_blocking(connector, [((3, 4), "BF16"), np.zeros(3)], transfers=2)
    arrays.push_blocking(connector, "", (np.zeros(3),), only=1, copy=True, timeout=1)


async def named_arrays_with_asyncio(connector: nc.Connector, pool: nc.HostPool) -> None:
    async with await arrays.offer(connector, {"x": np.zeros(3)}) as offer:
        assert_type(offer, arrays.Offer)
        await offer.wait(timeout=1)
    await arrays.fetch(connector, offer.message(), device="cuda:0", max_bytes=1 << 20)
    await arrays.fetch(connector, offer.message(), device=nc.Device("cpu"), only="x")
    async with await arrays.expect(connector, {"x": ((), np.float32)}) as wanted:
        await arrays.push(connector, wanted.message(), {"x": np.float32(3)})

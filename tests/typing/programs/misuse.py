"""Mistakes that type checkers find. Checked, not run.

A comment that ignores an error which is not made is an error of its own, for both checkers.
"""
# ruff: noqa: B018
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import nixl_connect as nc


async def an_await_is_missing(
    connector: nc.Connector, memory: nc.Descriptor, metadata: nc.RdmaMetadata
) -> None:
    connector.close()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    connector.create_readable(memory).metadata()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    async with connector.create_readable(memory):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with connector.create_readable(memory):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    read = connector.begin_read(metadata, memory)
    read.wait_for_completion_blocking()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    operation = await connector.begin_read(metadata, memory)
    operation.wait_for_completion()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await operation.wait_for_completion_blocking()  # type: ignore[misc, func-returns-value]  # pyright: ignore[reportGeneralTypeIssues]


async def a_lease_without_await(pool: nc.HostPool) -> None:
    with pool.acquire(8):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    pool.acquire(8).view  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def arguments_in_the_wrong_order(
    connector: nc.Connector, memory: nc.Descriptor, metadata: nc.RdmaMetadata
) -> None:
    connector.begin_read_blocking(memory, metadata)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connector.begin_write_blocking(metadata, memory)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connector.prepare_read_blocking(memory, metadata)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def arguments_of_coroutines_in_the_wrong_order(
    connector: nc.Connector, memory: nc.Descriptor, metadata: nc.RdmaMetadata
) -> None:
    await connector.begin_read(memory, metadata)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connector.begin_write(metadata, memory)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def the_wrong_side(
    connector: nc.Connector, memory: nc.Descriptor, readable: nc.ReadableOperation
) -> None:
    connector.begin_read_blocking(readable, memory)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connector.begin_read_blocking(readable.metadata, memory)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connector.begin_read_blocking(readable.metadata().to_bytes(), memory)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connector.begin_read_blocking(readable.metadata().model_dump(), memory)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    readable.remote  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    readable.results()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def the_other_side(write: nc.WriteOperation) -> None:
    write.results()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    write.metadata()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    wrong: nc.PassiveOperation = write  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(wrong)


def no_descriptors(
    connector: nc.Connector, metadata: nc.RdmaMetadata, memory: nc.Descriptor
) -> None:
    connector.create_readable_blocking(bytearray(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connector.create_readable_blocking([b"a"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    connector.create_readable_blocking({memory})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connector.create_readable_blocking(metadata.descriptors)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connector.create_readable_blocking()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def not_memory(objects: list[int]) -> None:
    nc.Descriptor("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Descriptor(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Descriptor(objects)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Descriptor(4096)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Descriptor((4096, 8, 1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Descriptor((4096.0, 8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Descriptor((4096, "8"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Descriptor(bytearray(8), "cuda")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    nc.Descriptor(bytearray(8), stream="default")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Blocks(bytearray(8), 4, "01")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Blocks(bytearray(8), 4, {0, 1})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Blocks(bytearray(8), 4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def options(connector: nc.Connector, memory: nc.Descriptor) -> None:
    nc.Connector(keys="0123456789abcdef")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Connector(keys=["0123456789abcdef"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    nc.Connector("worker", b"0123456789abcdef")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nc.Connector(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Connector(timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Connector(time_out=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nc.Connector(backends={"UCX": {"threads": 1}})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    connector.create_readable_blocking(memory, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    connector.create_readable_blocking(memory, timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.HostPool(connector, 1 << 20)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nc.HostPool("worker")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Device(0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.Device(("cuda", 0))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def what_cannot_be_set(
    metadata: nc.RdmaMetadata, operation: nc.ReadOperation, memory: nc.Descriptor
) -> None:
    metadata.notification_key = "mine"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    operation.status = nc.OperationStatus.COMPLETE  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    memory.size = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def metadata_by_hand(metadata: nc.RdmaMetadata) -> None:
    nc.RdmaMetadata([], "")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nc.RdmaMetadata(notification_key=b"mine")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.RdmaMetadata(operation_type=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nc.SerializedDescriptor(ptr="4096", size=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    metadata.to_descriptors().ptr  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    nc.RdmaMetadata.model_validate_json({})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nc.RdmaMetadata.from_bytes("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def results_may_be_blocks(read: nc.ReadOperation) -> None:
    read.results()[0].ptr  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]


def figures(connector: nc.Connector) -> None:
    connector.stats()["operation"]  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]
    connector.stats()["operations"]["in_flight"]  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]


def statuses(operation: nc.AbstractOperation) -> bool:
    return operation.status == "DONE"  # type: ignore[comparison-overlap]  # pyright: ignore[reportUnnecessaryComparison]


def made_by_hand(connection: nc.Connection, memory: nc.Descriptor) -> None:
    nc.AbstractOperation()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    nc.ReadableOperation(connection)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nc.TransferError("failed", "ERR_BACKEND")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

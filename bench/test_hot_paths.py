"""What a small transfer costs, step by step. Times are of this machine; compare within one run.

Each benchmark checks what it did, outside of the timed part, so that none can be fast by doing
nothing.
"""

import asyncio

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect._native import envelope
from nixl_connect._native.packing import Regions
from nixl_connect._native.ranges import RangeMap
from nixl_connect._native.status import StatusCell


def described(count):
    return nc.RdmaMetadata(
        descriptors=[
            nc.SerializedDescriptor(device="cpu", ptr=4096 * (i + 1), size=4096)
            for i in range(count)
        ],
        nixl_metadata="b64:" + "A" * 400,
        notification_key="0" * 32,
        operation_kind=1,
    )


def test_status_transition(benchmark):
    def life():
        cell = StatusCell()
        return cell.advance(1), cell.advance(2), cell.advance(3), cell.advance(4)

    assert benchmark(life) == (True, True, True, False)


@pytest.mark.parametrize("count", [1, 10_000])
def test_packing(benchmark, count):
    rows = [(4096 * (i + 1), 4096, 0) for i in range(count)]
    assert benchmark(Regions, rows).nbytes == 4096 * count


def test_packing_an_array(benchmark):
    rows = np.empty((100_000, 3), np.uint64)
    rows[:, 0] = np.arange(1, 100_001) * 4096
    rows[:, 1:] = 4096, 0
    assert benchmark(Regions, rows).nbytes == 4096 * 100_000


@pytest.mark.parametrize("count", [1, 10_000])
def test_json_out_and_in(benchmark, count):
    metadata = described(count)
    assert (
        benchmark(lambda: nc.RdmaMetadata.model_validate_json(metadata.model_dump_json()))
        == metadata
    )


@pytest.mark.parametrize("count", [1, 10_000])
def test_binary_out_and_in(benchmark, count):
    metadata = described(count)
    assert benchmark(lambda: nc.RdmaMetadata.from_bytes(metadata.to_bytes())) == metadata


def test_envelope(benchmark, connectors):
    blob = connectors[0]._open().metadata
    assert benchmark(envelope.parse, blob).agent == f"{connectors[0].name}-1"


def test_status_of_an_operation(benchmark, connectors):
    operation = connectors[0].create_readable_blocking(nc.Descriptor(b"abc"))
    assert benchmark(lambda: operation.status) is nc.OperationStatus.INITIALIZED


def test_create_and_cancel(benchmark, connectors):
    data = nc.Descriptor(np.zeros(64, np.uint8))
    operation = benchmark(lambda: connectors[0].create_readable_blocking(data))
    assert operation.status is nc.OperationStatus.INITIALIZED


def test_create_with_metadata(benchmark, connectors):
    data = nc.Descriptor(np.zeros(64, np.uint8))
    text = benchmark(
        lambda: connectors[0].create_readable_blocking(data).metadata().model_dump_json()
    )
    assert nc.RdmaMetadata.model_validate_json(text).descriptors[0].ptr == data.ptr


@pytest.mark.parametrize("count", [100, 10_000])
def test_look_up_of_ranges(benchmark, count):
    ranges = RangeMap()
    for i in range(count):
        ranges.add(4096 * i, 4096 * i + 4096, i)
    at = 4096 * (count // 2)
    assert benchmark(lambda: ranges.neighbour(at + 10, at + 20)) == count // 2


def test_begin(benchmark, connectors):
    """Begin a read of 8 bytes and wait for it, its metadata at hand."""
    owner, mover = connectors
    source, target = np.ones(8, np.uint8), np.zeros(8, np.uint8)

    def offer():
        readable = owner.create_readable_blocking(nc.Descriptor(source))
        return (readable.metadata().model_dump_json(), nc.Descriptor(target)), {}

    def read(text, descriptor):
        metadata = nc.RdmaMetadata.model_validate_json(text)
        operation = mover.begin_read_blocking(metadata, descriptor)
        operation.wait_for_completion_blocking(10)

    benchmark.pedantic(read, setup=offer, rounds=2000)
    assert (source == target).all()


def test_prepared(benchmark, connectors):
    owner, mover = connectors
    source, target = np.ones(8, np.uint8), np.zeros(8, np.uint8)
    readable = owner.create_readable_blocking(nc.Descriptor(source))
    with mover.prepare_read_blocking(readable.metadata(), nc.Descriptor(target)) as read:
        benchmark(read.transfer_blocking)
    assert (source == target).all()


def test_poll_with_nothing_there(benchmark, connectors):
    """Look at the transfers in flight when there are none: the part of a wait that is not NIXL."""
    reactor = connectors[1]._open()._engine._reactor
    assert benchmark(reactor.look, 0.0) is False


def test_whole_cycle_asyncio(benchmark, connectors):
    owner, mover = connectors
    source, target = np.ones(8, np.uint8), np.zeros(8, np.uint8)

    async def cycle():
        readable = await owner.create_readable(nc.Descriptor(source))
        text = readable.metadata().model_dump_json()
        metadata = nc.RdmaMetadata.model_validate_json(text)
        read = await mover.begin_read(metadata, nc.Descriptor(target))
        await read.wait_for_completion(10)
        await readable.wait_for_completion(10)

    loop = asyncio.new_event_loop()
    try:
        benchmark(lambda: loop.run_until_complete(cycle()))
    finally:
        loop.close()
    assert (source == target).all()

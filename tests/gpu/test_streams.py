"""A kernel that is slow to fill a buffer, or to read it: what the order of streams is worth."""

import asyncio
import time

import numpy as np
import pytest

import nixl_connect as nc

DEADLINE = 20
SIZE = 1 << 20
LATE = 0.5  # seconds that the kernel waits; a transfer takes far less


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)


@pytest.fixture
def late(gpu, data):
    """Have a stream be about to fill memory; return both."""
    source, target = gpu.holding(data), gpu.memory(SIZE)
    target.clear()
    stream = gpu.stream()
    # Once before, so that the kernel is loaded.
    gpu.copy_late(stream, target, source, 0)
    gpu.synchronise(stream)
    target.clear()
    gpu.copy_late(stream, target, source, LATE)
    yield target, stream
    gpu.synchronise(stream)
    del source


async def read(mover, metadata):
    """Return what a peer reads, within this process."""
    received = np.zeros(SIZE, np.uint8)
    operation = await mover.begin_read(metadata, nc.Descriptor(received))
    await operation.wait_for_completion(DEADLINE)
    return received


def test_with_its_stream_a_buffer_is_published_filled(late, data):
    target, stream = late

    async def main():
        async with nc.Connector() as owner, nc.Connector() as mover:
            stalls = asyncio.ensure_future(longest_stall())
            readable = await owner.create_readable(nc.Descriptor(target, stream=stream))
            stalls.cancel()
            assert (await read(mover, readable.metadata()) == data).all()

    asyncio.run(main())


async def longest_stall():
    """Fail where the event loop stands still for long."""
    before = time.monotonic()
    while True:
        await asyncio.sleep(0.01)
        assert time.monotonic() - before < LATE / 2, "the loop waited for the kernel"
        before = time.monotonic()


def test_without_it_is_published_as_it_is(gpu, late, data):
    """What the order is for: who leaves it out sends what was there before."""
    target, stream = late

    async def main():
        async with nc.Connector() as owner, nc.Connector() as mover:
            readable = await owner.create_readable(nc.Descriptor(target, stream=-1))
            return await read(mover, readable.metadata())

    assert not (asyncio.run(main()) == data).all()
    gpu.synchronise(stream)
    assert (target.read() == data).all()


@pytest.mark.parametrize("ordered", [True, False])
def test_a_write_of_what_is_being_filled(gpu, late, data, ordered):
    target, stream = late
    received = np.zeros(SIZE, np.uint8)
    with nc.Connector() as owner, nc.Connector() as mover:
        writable = owner.create_writable_blocking(nc.Descriptor(received))
        descriptor = nc.Descriptor(target, stream=stream if ordered else -1)
        write = mover.begin_write_blocking(descriptor, writable.metadata())
        write.wait_for_completion_blocking(DEADLINE)
        writable.wait_for_completion_blocking(DEADLINE)
    assert (received == data).all() == ordered


@pytest.mark.parametrize("ordered", [True, False])
def test_a_read_into_what_a_kernel_still_reads(gpu, data, ordered):
    """The kernel copies the buffer late: it must find what was there, not what comes."""
    old = np.full(SIZE, 255, np.uint8)
    buffer, copied = gpu.holding(old), gpu.memory(SIZE)
    copied.clear()
    stream = gpu.stream()
    gpu.copy_late(stream, copied, buffer, 0)
    gpu.synchronise(stream)
    gpu.copy_late(stream, copied, buffer, LATE)
    with nc.Connector() as owner, nc.Connector() as mover:
        readable = owner.create_readable_blocking(nc.Descriptor(data))
        descriptor = nc.Descriptor(buffer, stream=stream if ordered else -1)
        operation = mover.begin_read_blocking(readable.metadata(), descriptor)
        operation.wait_for_completion_blocking(DEADLINE)
        readable.wait_for_completion_blocking(DEADLINE)
    gpu.synchronise(stream)
    assert (buffer.read() == data).all()
    assert (copied.read() == old).all() == ordered


def test_each_transfer_of_a_prepared_one_waits(gpu, data):
    source, buffer = gpu.holding(data), gpu.memory(SIZE)
    buffer.clear()
    stream = gpu.stream()
    received = np.zeros(SIZE, np.uint8)
    with nc.Connector() as owner, nc.Connector() as mover:
        writable = owner.create_writable_blocking(nc.Descriptor(received))
        descriptor = nc.Descriptor(buffer, stream=stream)
        with mover.prepare_write_blocking(descriptor, writable.metadata()) as prepared:
            for number in range(1, 4):
                source.write(data // np.uint8(number))
                gpu.copy_late(stream, buffer, source, LATE / 4)
                prepared.transfer_blocking(DEADLINE)
                assert (received == data // np.uint8(number)).all()


def test_work_that_takes_longer_than_the_timeout(late):
    target, stream = late
    with nc.Connector() as owner, pytest.raises(nc.TransferTimeoutError, match="stream"):
        owner.create_readable_blocking(nc.Descriptor(target, stream=stream), timeout=LATE / 10)

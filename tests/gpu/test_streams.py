"""A kernel that is slow to fill a buffer, or to read it: what the order of streams is worth."""

import asyncio
import itertools
import time

import numpy as np
import pytest

import nixl_connect as nc

DEADLINE = 20
SIZE = 1 << 20
LATE = 0.5  # seconds that the kernel waits; a transfer takes far less
# What is not to wait for a kernel is registered before that starts: UCX has CUDA pin memory of the
# host, which may wait for the device.


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)


@pytest.fixture
def pair(gpu, data):
    """Two connectors that have moved something already: the first time takes long."""
    with nc.Connector() as owner, nc.Connector() as mover:
        memory, received = gpu.holding(data), np.zeros(SIZE, np.uint8)
        move(owner, mover, nc.Descriptor(memory), nc.Descriptor(received))
        assert (received == data).all()
        move(owner, mover, nc.Descriptor(received), nc.Descriptor(memory))
        yield owner, mover


def move(owner, mover, source, target):
    readable = owner.create_readable_blocking(source)
    read = mover.begin_read_blocking(readable.metadata(), target)
    read.wait_for_completion_blocking(DEADLINE)
    readable.wait_for_completion_blocking(DEADLINE)


@pytest.fixture
def stream(gpu):
    """A stream whose kernel has run once, so that it is loaded."""
    stream = gpu.stream()
    one, other = gpu.memory(1), gpu.memory(1)
    gpu.copy_late(stream, one, other, 0)
    gpu.synchronise(stream)
    return stream


@pytest.fixture
def fill_late(gpu, data, stream):
    """Have the stream fill memory after a while."""
    filled, source = [], gpu.holding(data)

    def fill(target):
        filled.append(target)
        gpu.copy_late(stream, target, source, LATE)

    yield fill
    gpu.synchronise(stream)
    for target in filled:
        assert (target.read() == data).all()


@pytest.fixture
def zeros(gpu):
    """Memory of the device."""
    memory = gpu.memory(SIZE)
    memory.clear()
    return memory


def registered(connector, data, **options):
    descriptor = nc.Descriptor(data, **options)
    descriptor.register_memory(connector)
    return descriptor


def test_with_its_stream_a_buffer_is_published_filled(pair, zeros, fill_late, stream, data):
    owner, mover = pair
    received = np.zeros(SIZE, np.uint8)
    fill_late(zeros)

    async def main():
        ticks = [time.monotonic()]

        async def tick():
            while True:
                await asyncio.sleep(0.005)
                ticks.append(time.monotonic())

        ticker = asyncio.ensure_future(tick())
        readable = await owner.create_readable(nc.Descriptor(zeros, stream=stream))
        ticker.cancel()
        ticks.append(time.monotonic())
        read = await mover.begin_read(readable.metadata(), nc.Descriptor(received))
        await read.wait_for_completion(DEADLINE)
        await readable.wait_for_completion(DEADLINE)
        longest = max(after - before for before, after in itertools.pairwise(ticks))
        assert longest < LATE / 2, "the loop waited for the kernel"

    asyncio.run(main())
    assert (received == data).all()


def test_without_it_is_published_as_it_is(gpu, pair, zeros, fill_late, stream):
    """What the order is for: who leaves it out sends what was there before."""
    owner, mover = pair
    received = np.full(SIZE, 255, np.uint8)
    source, target = registered(owner, zeros, stream=-1), registered(mover, received)
    fill_late(zeros)
    move(owner, mover, source, target)
    assert gpu.is_busy(stream), "the transfer took longer than the kernel: make it later"
    assert not received.any()


@pytest.mark.parametrize("ordered", [True, False])
def test_a_write_of_what_is_being_filled(gpu, pair, zeros, fill_late, stream, data, ordered):
    owner, mover = pair
    received = np.zeros(SIZE, np.uint8)
    writable = owner.create_writable_blocking(nc.Descriptor(received))
    descriptor = registered(mover, zeros, stream=stream if ordered else -1)
    fill_late(zeros)
    write = mover.begin_write_blocking(descriptor, writable.metadata())
    write.wait_for_completion_blocking(DEADLINE)
    writable.wait_for_completion_blocking(DEADLINE)
    assert gpu.is_busy(stream) != ordered
    assert (received == (data if ordered else 0)).all()


@pytest.mark.parametrize("ordered", [True, False])
def test_a_read_into_what_a_kernel_still_reads(gpu, pair, stream, data, ordered):
    """The kernel copies the buffer late: it must find what was there, not what comes."""
    old = np.full(SIZE, 255, np.uint8)
    owner, mover = pair
    buffer, copied = gpu.holding(old), gpu.memory(SIZE)
    copied.clear()
    source = registered(owner, data)
    target = registered(mover, buffer, stream=stream if ordered else -1)
    gpu.copy_late(stream, copied, buffer, LATE)
    move(owner, mover, source, target)
    assert gpu.is_busy(stream) != ordered
    gpu.synchronise(stream)
    assert (buffer.read() == data).all()
    assert (copied.read() == (old if ordered else data)).all()


def test_each_transfer_of_a_prepared_one_waits(gpu, pair, stream, data):
    owner, mover = pair
    source, buffer = gpu.holding(data), gpu.memory(SIZE)
    buffer.clear()
    received = np.zeros(SIZE, np.uint8)
    writable = owner.create_writable_blocking(nc.Descriptor(received))
    descriptor = nc.Descriptor(buffer, stream=stream)
    with mover.prepare_write_blocking(descriptor, writable.metadata()) as prepared:
        for number in range(1, 4):
            source.write(data // np.uint8(number))
            gpu.copy_late(stream, buffer, source, LATE / 4)
            prepared.transfer_blocking(DEADLINE)
            assert (received == data // np.uint8(number)).all()


def test_work_that_takes_longer_than_the_timeout(pair, zeros, fill_late, stream):
    owner, _ = pair
    fill_late(zeros)
    with pytest.raises(nc.TransferTimeoutError, match="stream"):
        owner.create_readable_blocking(nc.Descriptor(zeros, stream=stream), timeout=LATE / 10)

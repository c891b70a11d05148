"""No byte moves before what a stream was given is done; real transfers, of memory of the host."""

import asyncio
import threading
import time

import numpy as np
import pytest
from calls import failing
from processes import until

import nixl_connect as nc

DEADLINE = 20
SIZE = 1000


@pytest.fixture
def connector():
    with nc.Connector() as connector:
        connector._open()
        yield connector


class Stream:
    """What has __cuda_stream__, as streams of cuda.core have."""

    def __init__(self, handle):
        self.handle = handle

    def __cuda_stream__(self):
        return 0, self.handle


@pytest.fixture
def filled(driver):
    """A stream, an array that it has yet to fill, and what with."""
    stream = driver.stream()
    data = np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)
    array = np.zeros(SIZE, np.uint8)
    driver.give(stream, array, data)
    return stream, array, data


async def late(awaitable, driver, stream):
    """Await something that has to wait for a stream; the loop goes on meanwhile."""
    task = asyncio.ensure_future(awaitable)
    ticks = 0
    end = time.monotonic() + 0.2
    while time.monotonic() < end or ticks < 20:  # where the loop stands still, it does for good
        await asyncio.sleep(0.001)
        ticks += 1
    assert not task.done()
    driver.finish(stream)
    return await asyncio.wait_for(task, DEADLINE)


def test_nothing_is_published_before(driver, connector, filled):
    stream, array, data = filled

    async def main():
        readable = await late(
            connector.create_readable(nc.Descriptor(array, stream=Stream(stream))), driver, stream
        )
        target = np.zeros(SIZE, np.uint8)
        read = await connector.begin_read(readable.metadata(), nc.Descriptor(target))
        await read.wait_for_completion(DEADLINE)
        assert (target == data).all()

    asyncio.run(main())


def test_nothing_is_written_before(driver, connector, filled):
    stream, array, data = filled

    async def main():
        target = np.zeros(SIZE, np.uint8)
        writable = await connector.create_writable(nc.Descriptor(target))
        source = nc.Descriptor(array, stream=stream)
        write = await late(connector.begin_write(source, writable.metadata()), driver, stream)
        await write.wait_for_completion(DEADLINE)
        assert (target == data).all()

    asyncio.run(main())


def test_without_order_it_is_too_early(driver, connector, filled):
    stream, array, _ = filled

    async def main():
        readable = await connector.create_readable(nc.Descriptor(array, stream=-1))
        target = np.ones(SIZE, np.uint8)
        read = await connector.begin_read(readable.metadata(), nc.Descriptor(target))
        await read.wait_for_completion(DEADLINE)
        assert not target.any()

    asyncio.run(main())
    driver.finish(stream)


def test_blocking(driver, connector, filled):
    stream, array, data = filled
    timer = threading.Timer(0.2, driver.finish, (stream,))
    timer.start()
    readable = connector.create_readable_blocking(nc.Descriptor(array, stream=stream))
    timer.join()
    target = np.zeros(SIZE, np.uint8)
    read = connector.begin_read_blocking(readable.metadata(), nc.Descriptor(target))
    read.wait_for_completion_blocking(DEADLINE)
    assert (target == data).all()


def test_each_operation_waits_for_what_was_given_before_it(driver, connector):
    """One descriptor, as pools have them, filled anew for each operation."""
    stream = driver.stream()
    array = np.zeros(SIZE, np.uint8)
    descriptor = nc.Descriptor(array, stream=stream)

    async def main():
        for i in range(1, 4):
            data = np.full(SIZE, i, np.uint8)
            driver.give(stream, array, data)
            readable = await late(connector.create_readable(descriptor), driver, stream)
            target = np.zeros(SIZE, np.uint8)
            read = await connector.begin_read(readable.metadata(), nc.Descriptor(target))
            await read.wait_for_completion(DEADLINE)
            assert (target == i).all()

    asyncio.run(main())


@pytest.mark.parametrize("blocking", [True, False])
def test_memory_that_is_refused_once_its_stream_is_done(driver, connector, blocking):
    descriptor = nc.Descriptor(np.zeros(SIZE, np.uint8), stream=driver.stream())
    connector._open()

    def offer():
        if blocking:
            connector.create_readable_blocking(descriptor)
        else:
            asyncio.run(connector.create_readable(descriptor))

    with failing("register_mem"), pytest.raises(nc.RegistrationError):
        offer()


def test_what_is_given_later_is_not_waited_for(driver, connector):
    stream = driver.stream()
    descriptor = nc.Descriptor(np.zeros(SIZE, np.uint8), stream=stream)
    readable = connector.create_readable_blocking(descriptor)
    driver.give(stream)
    readable.cancel()
    driver.finish(stream)


def test_two_streams_and_the_default_one(driver, connector):
    streams = [driver.stream(), driver.stream(1)]
    for stream in streams:
        driver.give(stream)
    descriptors = [
        nc.Descriptor(np.zeros(SIZE, np.uint8), stream=stream)
        for stream in (*streams, 1, streams[0])
    ]
    driver.give(driver.default_stream())

    async def main():
        task = asyncio.ensure_future(connector.create_readable(descriptors))
        for stream in (*streams, driver.default_stream()):
            await asyncio.sleep(0.05)
            assert not task.done()
            driver.finish(stream)
        await asyncio.wait_for(task, DEADLINE)

    asyncio.run(main())


def test_prepared_transfers_wait_each_time(driver, connector):
    stream = driver.stream()
    array, target = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    writable = connector.create_writable_blocking(nc.Descriptor(target))

    async def main():
        source = nc.Descriptor(array, stream=stream)
        async with await connector.prepare_write(source, writable.metadata()) as prepared:
            for i in range(1, 4):
                data = np.full(SIZE, i, np.uint8)
                driver.give(stream, array, data)
                await late(prepared.transfer(), driver, stream)
                assert (target == i).all()

    asyncio.run(main())
    writable = connector.create_writable_blocking(nc.Descriptor(target))
    source = nc.Descriptor(array, stream=stream)
    with connector.prepare_write_blocking(source, writable.metadata()) as prepared:
        driver.give(stream, array, np.full(SIZE, 9, np.uint8))
        timer = threading.Timer(0.1, driver.finish, (stream,))
        timer.start()
        prepared.transfer_blocking()
        timer.join()
        assert (target == 9).all()


def test_a_stream_that_is_never_done(driver, connector):
    stream = driver.stream()
    driver.give(stream)
    descriptor = nc.Descriptor(np.zeros(SIZE, np.uint8), stream=stream)
    with pytest.raises(nc.TransferTimeoutError):
        connector.create_readable_blocking(descriptor, timeout=0.1)

    async def main():
        with pytest.raises(nc.TransferTimeoutError):
            await connector.create_readable(descriptor, timeout=0.1)

    asyncio.run(main())
    assert connector.stats()["registrations"]["count"] == 0
    driver.finish(stream)
    until(lambda: not driver.events, collect=True)


def test_a_task_that_is_cancelled_meanwhile(driver, connector):
    stream = driver.stream()
    driver.give(stream)
    descriptor = nc.Descriptor(np.zeros(SIZE, np.uint8), stream=stream)

    async def main():
        task = asyncio.ensure_future(connector.create_readable(descriptor))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    driver.finish(stream)
    until(lambda: not driver.events, collect=True)
    assert connector.stats()["registrations"]["count"] == 0


def test_work_that_fails(driver, connector):
    stream = driver.stream()
    driver.give(stream)
    descriptor = nc.Descriptor(np.zeros(SIZE, np.uint8), stream=stream)
    driver.fail(700)
    try:
        with pytest.raises(nc.CudaError, match="ILLEGAL_ADDRESS"):
            connector.create_readable_blocking(descriptor)
    finally:
        driver.fail(0)
        driver.finish(stream)
    until(lambda: not driver.events, collect=True)


def test_many_on_one_stream_take_one_thread(driver, connector):
    stream = driver.stream()
    driver.give(stream)
    descriptor = nc.Descriptor(np.zeros(SIZE, np.uint8), stream=stream)

    async def main():
        before = threading.active_count()
        tasks = [asyncio.ensure_future(connector.create_readable(descriptor)) for _ in range(50)]
        await asyncio.sleep(0.1)
        assert threading.active_count() <= before + 3
        driver.finish(stream)
        await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE)

    asyncio.run(main())

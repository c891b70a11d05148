"""Copies between leases of a pool and what the driver takes for memory of a device."""

import asyncio
import gc
import threading

import numpy as np
import pytest
from processes import until

import nixl_connect as nc
from nixl_connect.memory import cuda

DEADLINE = 20
SIZE = 10_000


@pytest.fixture
def pool(driver):
    with nc.Connector(quarantine=0) as connector:
        with nc.HostPool(connector, max_bytes=1 << 20, slab_bytes=1 << 20) as pool:
            yield pool
            # A thread that has failed may be on its way out, with frames that hold a lease.
            until(lambda: not cuda._copying and pool.stats()["leases"] == 0, collect=True)
        assert driver.library.double_pinned() == 0


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)


@pytest.fixture
def on_device(driver):
    """Return a function that has the driver take an array for memory of a device."""
    mapped = []

    def make(array):
        driver.map(array.ctypes.data, array.nbytes)
        mapped.append(array)

    yield make
    for array in mapped:
        driver.unmap(array.ctypes.data)


def arguments(array):
    return array.ctypes.data, array.nbytes, "cuda:0", array


def test_there_and_back(pool, data, on_device):
    on_device(data)
    back = np.zeros_like(data)
    on_device(back)

    async def main():
        with await pool.acquire(SIZE) as lease:
            await lease.copy_from(arguments(data))
            assert (np.frombuffer(lease.view, np.uint8) == data).all()
            await lease.copy_to(arguments(back))

    asyncio.run(main())
    assert (back == data).all()
    back[:] = 0
    with pool.acquire_blocking(SIZE) as lease:
        lease.copy_from_blocking(arguments(data))
        lease.copy_to_blocking(arguments(back))
    assert (back == data).all()


def test_a_device_at_each_end_of_a_transfer(pool, data, on_device):
    """The way around, as the documentation has it."""
    on_device(data)
    received = np.zeros_like(data)
    on_device(received)

    async def send(connector):
        with await pool.acquire(SIZE) as lease:
            await lease.copy_from(arguments(data))
            readable = await connector.create_readable(lease.descriptor)
            return readable, readable.metadata()

    async def main():
        async with nc.Connector() as mover:
            readable, metadata = await send(pool._connector)
            with await pool.acquire(SIZE) as lease:
                read = await mover.begin_read(metadata, lease.descriptor)
                await read.wait_for_completion(DEADLINE)
                await lease.copy_to(arguments(received))
            await readable.wait_for_completion(DEADLINE)

    asyncio.run(main())
    assert (received == data).all()


def test_in_the_order_of_the_stream(pool, data, driver, on_device):
    """The copy comes after what the stream has been given, and is awaited."""
    array = np.zeros_like(data)
    on_device(array)
    stream = driver.stream()
    driver.give(stream, array, data)

    async def main():
        with await pool.acquire(SIZE) as lease:
            task = asyncio.ensure_future(lease.copy_from(arguments(array), stream=stream))
            await asyncio.sleep(0.1)
            assert not task.done()
            driver.finish(stream)
            await asyncio.wait_for(task, DEADLINE)
            assert (np.frombuffer(lease.view, np.uint8) == data).all()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["timeout", "cancelled", "blocking"])
def test_given_up_before_it_is_begun(pool, data, driver, on_device, how):
    """Then nothing is copied, and the lease goes back."""
    stream = driver.stream()
    on_device(data)
    driver.give(stream)
    lease = pool.acquire_blocking(SIZE)
    np.frombuffer(lease.view, np.uint8)[:] = 0

    async def main():
        task = asyncio.ensure_future(lease.copy_from(arguments(data), stream=stream, timeout=0.05))
        if how == "cancelled":
            await asyncio.sleep(0.01)
            task.cancel()
        with pytest.raises((nc.TransferTimeoutError, asyncio.CancelledError)):
            await task

    if how == "blocking":
        with pytest.raises(nc.TransferTimeoutError):
            lease.copy_from_blocking(arguments(data), stream=stream, timeout=0.05)
    else:
        asyncio.run(main())
    driver.finish(stream)
    assert not np.frombuffer(lease.view, np.uint8).any()
    lease.release()
    until(lambda: pool.stats()["leases"] == 0, collect=True)


def test_both_sides_are_held_while_it_is_made(pool, data, driver, on_device):
    """Whatever happens to who waits: else the copy would overwrite the next lease."""
    on_device(data)
    busy = driver.default_stream()
    driver.give(busy)
    lease = pool.acquire_blocking(SIZE)
    address = lease.descriptor.ptr

    async def main():
        task = asyncio.ensure_future(lease.copy_from(arguments(data)))
        await asyncio.sleep(0.1)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    lease.release()
    gc.collect()
    assert len(cuda._copying) == pool.stats()["leases"] == 1
    other = pool.acquire_blocking(SIZE)
    assert other.descriptor.ptr != address
    other.release()
    driver.finish(busy)
    until(lambda: pool.stats()["leases"] == 0, collect=True)


def test_the_loop_goes_on_while_it_is_made(pool, data, driver, on_device):
    on_device(data)
    driver.give(driver.default_stream())

    async def main():
        with await pool.acquire(SIZE) as lease:
            task = asyncio.ensure_future(lease.copy_from(arguments(data)))
            for _ in range(50):
                await asyncio.sleep(0.001)
            driver.finish(driver.default_stream())
            await asyncio.wait_for(task, DEADLINE)
            assert (np.frombuffer(lease.view, np.uint8) == data).all()

    asyncio.run(main())


@pytest.mark.parametrize("stream", [None, 1])
def test_work_that_fails(pool, data, driver, on_device, stream):
    """That of the stream, or the copy; then nothing is held."""
    on_device(data)
    driver.fail(700)
    with pool.acquire_blocking(SIZE) as lease:
        with pytest.raises(nc.CudaError, match="ILLEGAL_ADDRESS"):
            lease.copy_from_blocking(arguments(data), stream=stream)
        with pytest.raises(nc.CudaError, match="ILLEGAL_ADDRESS"):
            asyncio.run(lease.copy_to(arguments(data), stream=stream))
    driver.fail(0)


def test_while_a_graph_is_captured(pool, data, driver, on_device):
    """By another thread, which is none of this one's; but its own stream has no end to wait for."""
    stream, captured = driver.stream(), driver.stream()
    on_device(data)
    driver.give(stream)
    driver.capture(captured, True)
    try:
        with pool.acquire_blocking(SIZE) as lease:
            timer = threading.Timer(0.1, driver.finish, [stream])
            timer.start()
            lease.copy_from_blocking(arguments(data), stream=stream, timeout=DEADLINE)
            timer.join()
            assert (np.frombuffer(lease.view, np.uint8) == data).all()
            with pytest.raises(nc.CudaError, match="captured in a graph"):
                lease.copy_from_blocking(arguments(data), stream=captured)
    finally:
        driver.capture(captured, False)


def test_what_cannot_be_copied(pool, data, on_device):
    on_device(data)
    with pool.acquire_blocking(100) as lease:
        with pytest.raises(nc.ArgumentError, match="10000 bytes, but there are 100"):
            lease.copy_from_blocking(arguments(data))
        with pytest.raises(nc.ArgumentError, match="read-only"):
            lease.copy_to_blocking(bytes(10))
        with pytest.raises(nc.ArgumentError, match="xpu"):
            lease.copy_to_blocking((0x1000, 10, "xpu:0"))
        with pytest.raises(nc.ArgumentError, match="is not memory of a CUDA device"):
            lease.copy_from_blocking((data[:100].copy().ctypes.data, 10, "cuda:0"))
    with pytest.raises(nc.ClosedError):
        lease.copy_from_blocking(arguments(data))

"""Leases of pinned memory, blocks of a cache on a device."""

import asyncio

import numpy as np
import pytest

import nixl_connect as nc

DEADLINE = 20
SIZE = 8 << 20


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


def test_by_way_of_the_host(gpu, data):
    source, target = gpu.holding(data), gpu.memory(SIZE)

    async def main():
        async with nc.Connector() as owner, nc.Connector() as mover:
            ours, theirs = nc.HostPool(owner), nc.HostPool(mover)
            assert ours._slabs._pin
            with await ours.acquire(SIZE) as lease:
                await lease.copy_from(source)
                readable = await owner.create_readable(lease.descriptor)
            with await theirs.acquire(SIZE) as lease:
                read = await mover.begin_read(readable.metadata(), lease.descriptor)
                await read.wait_for_completion(DEADLINE)
                await lease.copy_to(target)
            await readable.wait_for_completion(DEADLINE)
            ours.close()
            theirs.close()

    asyncio.run(main())
    assert (target.read() == data).all()


def test_a_copy_comes_after_the_work_of_its_stream(gpu, data):
    source, buffer = gpu.holding(data), gpu.memory(SIZE)
    buffer.clear()
    stream = gpu.stream()
    gpu.copy_late(stream, buffer, source, 0.2)
    with (
        nc.Connector() as connector,
        nc.HostPool(connector) as pool,
        pool.acquire_blocking(SIZE) as lease,
    ):
        lease.copy_from_blocking(buffer, stream=stream)
        assert (np.frombuffer(lease.view, np.uint8) == data).all()


def test_blocks(gpu, data):
    block = 4096
    order = np.random.default_rng(1).permutation(SIZE // block)[:1000]
    cache, target = gpu.holding(data), gpu.memory(1000 * block)
    with nc.Connector() as owner, nc.Connector() as mover:
        readable = owner.create_readable_blocking(nc.Blocks(cache, block, order))
        metadata = nc.RdmaMetadata.from_bytes(readable.metadata().to_bytes())
        read = mover.begin_read_blocking(metadata, nc.Blocks(target, block, range(1000)))
        read.wait_for_completion_blocking(DEADLINE)
        readable.wait_for_completion_blocking(DEADLINE)
    assert (target.read().reshape(1000, block) == data.reshape(-1, block)[order]).all()

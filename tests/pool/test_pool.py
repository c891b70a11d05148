"""A pool of registered memory: leases that come back when nobody needs them, and no earlier."""

import asyncio
import contextlib
import gc
import itertools
import mmap
import random
import sys
import threading
import time

import numpy as np
import pytest
from calls import failing
from processes import until

import nixl_connect as nc
from nixl_connect.pool import slabs

DEADLINE = 20
MIB = 1 << 20


def test_a_lease(make_pool, make_connector):
    connector = make_connector(quarantine=0)
    pool = make_pool(connector)
    with pool.acquire_blocking(1000) as lease:
        assert lease.nbytes == len(lease.view) == lease.descriptor.size == 1000
        assert lease.descriptor.ptr % mmap.PAGESIZE == 0
        assert not lease.view.readonly
        array = np.frombuffer(lease.view, np.uint8)
        array[:] = 7
        assert connector.stats()["registrations"] == {"count": 1, "bytes": MIB}
        with connector.create_readable_blocking(lease.descriptor):
            assert connector.stats()["registrations"]["count"] == 1
        assert pool.stats()["leases"] == 1
        assert pool.stats()["leased_bytes"] == 4096
    for name in ("view", "descriptor"):
        with pytest.raises(nc.ClosedError):
            getattr(lease, name)
    lease.release()
    del array
    until(lambda: pool.stats()["leases"] == 0)
    assert pool.stats()["free_bytes"] == MIB


def test_copies_of_memory_of_the_host(make_pool):
    """A program that goes by way of the host does the same without a GPU."""
    data = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8)
    target = np.zeros(9_999, np.uint8)

    async def main():
        with await make_pool().acquire(10_000) as lease:
            await lease.copy_from(data)
            assert (np.frombuffer(lease.view, np.uint8) == data).all()
            await lease.copy_to(target)
            assert (target == data[:-1]).all()
            lease.copy_from_blocking(b"first")
            lease.copy_to_blocking(target)
            assert bytes(target[:6]) == b"first" + bytes(data[5:6])
            with pytest.raises(nc.ArgumentError, match="10001 bytes, but there are 10000"):
                await lease.copy_from(bytes(10_001))

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["view", "array", "descriptor", "slice", "blocks"])
def test_a_block_comes_back_with_the_last_who_needs_it(make_pool, kind):
    pool = make_pool()
    lease = pool.acquire_blocking(4096)
    address = lease.descriptor.ptr
    last = {
        "view": lambda: lease.view[10:20],
        "array": lambda: np.frombuffer(lease.view, np.uint32)[5:],
        "descriptor": lambda: lease.descriptor,
        "slice": lambda: lease.descriptor.slice(5, 6),
        "blocks": lambda: nc.Blocks(lease.descriptor, 64, range(4)),
    }[kind]()
    lease.release()
    gc.collect()
    assert pool.stats()["leases"] == 1
    other = pool.acquire_blocking(4096)
    assert other.descriptor.ptr != address
    other.release()
    del last
    gc.collect()
    assert pool.stats()["leases"] == 0


def test_a_block_comes_back_no_earlier_than_its_operation_ends(make_pool, make_connector):
    """Not while a peer that was slow may still write to it."""
    connector = make_connector(quarantine=3.0)
    pool = make_pool(connector, max_bytes=MIB)
    lease = pool.acquire_blocking(MIB)
    operation = connector.create_writable_blocking(lease.descriptor)
    operation.metadata()
    lease.release()
    began = time.monotonic()
    operation.cancel()
    del operation
    gc.collect()
    with pytest.raises(nc.PoolExhaustedError):
        pool.acquire_blocking(MIB, timeout=0.2)
    pool.acquire_blocking(MIB, timeout=DEADLINE).release()
    assert time.monotonic() - began > 2.9
    assert pool.stats()["waits"] == 2


def test_sizes(make_pool):
    pool = make_pool()
    leases = {nbytes: pool.acquire_blocking(nbytes) for nbytes in (1, 4096, 4097, MIB, 3 * MIB)}
    sizes = 4096, 4096, 8192, MIB, 4 * MIB
    assert pool.stats()["leased_bytes"] == sum(sizes)
    assert pool.stats()["slabs"] == 4
    starts = sorted((lease.descriptor.ptr, lease.nbytes) for lease in leases.values())
    for (start, nbytes), (following, _) in itertools.pairwise(starts):
        assert start + nbytes <= following
    for lease in leases.values():
        assert lease.descriptor.ptr % mmap.PAGESIZE == 0


def test_the_limit(make_pool):
    pool = make_pool(max_bytes=2 * MIB)
    with pytest.raises(nc.ArgumentError, match="in all"):
        pool.acquire_blocking(2 * MIB + 1)
    small = pool.acquire_blocking(100)
    with pytest.raises(nc.PoolExhaustedError) as caught:
        pool.acquire_blocking(2 * MIB, timeout=0)
    assert isinstance(caught.value, TimeoutError)
    small.release()
    # What is free in other sizes makes room.
    large = pool.acquire_blocking(2 * MIB, timeout=DEADLINE)
    assert pool.stats()["bytes"] == 2 * MIB
    large.release()
    pool.acquire_blocking(100, timeout=DEADLINE)


def test_trim(make_pool, make_connector):
    connector = make_connector()
    pool = make_pool(connector)
    one, other = pool.acquire_blocking(100), pool.acquire_blocking(10_000)
    one.release()
    assert pool.trim() == MIB
    assert pool.stats()["slabs"] == 1
    until(lambda: connector.stats()["registrations"] == {"count": 1, "bytes": MIB})
    other.release()
    assert pool.trim() == MIB
    until(lambda: connector.stats()["registrations"]["count"] == 0)


def test_closing(make_pool, make_connector):
    """What is in use stays; what comes back later goes at once."""
    connector = make_connector()
    pool = make_pool(connector)
    lease, other = pool.acquire_blocking(100), pool.acquire_blocking(10_000)
    other.release()
    pool.close()
    pool.close()
    with pytest.raises(nc.ClosedError):
        pool.acquire_blocking(1)
    until(lambda: connector.stats()["registrations"]["count"] == 1)
    np.frombuffer(lease.view, np.uint8)[:] = 5
    lease.release()
    until(lambda: connector.stats()["registrations"]["count"] == 0)


def test_figures_of_a_closed_pool(make_pool):
    """What is in use when it closes, and comes back later, is no longer the pool's."""
    pool = make_pool()
    lease = pool.acquire_blocking(100)
    pool.close()
    nothing = {"bytes": 0, "slabs": 0, "leases": 0, "leased_bytes": 0, "free_bytes": 0, "waits": 0}
    assert pool.stats() == nothing
    lease.release()
    assert pool.stats() == nothing


def test_figures_while_memory_is_added(make_pool, monkeypatch):
    """It is counted when it is registered."""
    pool = make_pool()
    lease = pool.acquire_blocking(MIB)
    seen = []

    class Slab(slabs.Slab):
        def __init__(self, *arguments, **options):
            seen.append(pool.stats())
            super().__init__(*arguments, **options)
            seen.append(pool.stats())

    monkeypatch.setattr(slabs, "Slab", Slab)
    other = pool.acquire_blocking(MIB)
    for figures in seen:
        assert (figures["bytes"], figures["leased_bytes"], figures["free_bytes"]) == (MIB, MIB, 0)
    assert (pool.stats()["bytes"], pool.stats()["free_bytes"]) == (2 * MIB, 0)
    lease.release()
    other.release()


def test_everything_at_once(make_pool):
    """Threads and tasks, sizes that are in each other's way, cancellations, trims: none hangs."""
    pool = make_pool(max_bytes=MIB, slab_bytes=128 * 1024)

    class Guarded(dict):
        """What others add up while it changes, unless that is under the lock."""

        def __setitem__(self, key, value):
            assert pool._slabs._lock._is_owned()
            super().__setitem__(key, value)

        def __delitem__(self, key):
            assert pool._slabs._lock._is_owned()
            super().__delitem__(key)

    pool._slabs._growing = Guarded()
    sizes = (100, 5000, 60_000, 200_000, MIB)
    end = time.monotonic() + 2
    lent, failures = set(), []

    @contextlib.contextmanager
    def used(lease):
        with lease:
            at = lease.descriptor.ptr
            assert at not in lent
            lent.add(at)
            try:
                yield
            finally:
                lent.remove(at)

    def use_one(nbytes, timeout):
        try:
            with used(pool.acquire_blocking(nbytes, timeout)):
                time.sleep(0)
        except nc.PoolExhaustedError:
            pool.trim()

    def run(seed):
        rng = random.Random(seed)
        try:
            while time.monotonic() < end:
                use_one(rng.choice(sizes), rng.choice((0, 0.01, 5)))
        except BaseException as error:
            failures.append(error)
            raise

    async def task(rng):
        while time.monotonic() < end:
            with used(await pool.acquire(rng.choice(sizes))):
                await asyncio.sleep(0)

    async def main():
        rng = random.Random(0)
        tasks = [asyncio.ensure_future(task(rng)) for _ in range(6)]
        while time.monotonic() < end:
            await asyncio.sleep(0.002)
            number = rng.randrange(6)
            tasks[number].cancel()
            await asyncio.wait([tasks[number]], timeout=DEADLINE)
            tasks[number] = asyncio.ensure_future(task(rng))
        _, pending = await asyncio.wait(tasks, timeout=DEADLINE)
        assert not pending
        assert not [task for task in tasks if task.exception()]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        asyncio.run(main())
        for thread in threads:
            thread.join(DEADLINE)
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    until(lambda: pool.stats()["leases"] == 0, collect=True)


def test_threads(make_pool):
    """Nobody is lent what another has."""
    pool = make_pool(max_bytes=2 * MIB, slab_bytes=256 * 1024)
    failures = []

    def run(number):
        rng = random.Random(number)
        try:
            for _ in range(150):
                nbytes = rng.choice((10, 5000, 100_000))
                with pool.acquire_blocking(nbytes, timeout=DEADLINE) as lease:
                    array = np.frombuffer(lease.view, np.uint8)
                    array[:] = number
                    time.sleep(0)
                    assert (array == number).all()
                    del array
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    until(lambda: pool.stats()["leases"] == 0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_bytes": 0}, nc.ArgumentError),
        ({"max_bytes": 1.5}, nc.ArgumentTypeError),
        ({"slab_bytes": 0}, nc.ArgumentError),
        ({"slab_bytes": 16 * MIB}, nc.ArgumentError),
    ],
)
def test_bad_options(connector, options, error):
    with pytest.raises(error):
        nc.HostPool(connector, **({"max_bytes": 8 * MIB} | options))


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_sizes_of_numpy(make_pool, kind):
    pool = make_pool()
    with pool.acquire_blocking(kind(8)) as lease:
        assert len(lease.view) == lease.nbytes == 8
    with asyncio.run(pool.acquire(kind(8))) as lease:
        assert len(lease.view) == 8


def test_bad_sizes(make_pool):
    pool = make_pool()
    for nbytes, error in ((0, nc.ArgumentError), (-1, nc.ArgumentError)):
        with pytest.raises(error):
            pool.acquire_blocking(nbytes)
    with pytest.raises(nc.ArgumentTypeError):
        pool.acquire_blocking("8")
    with pytest.raises(nc.ArgumentTypeError):
        nc.HostPool("connector")


def test_memory_that_the_system_does_not_have(make_pool):
    """Nor has anybody: the pool is as it was, and lends what there is."""
    pool = make_pool(max_bytes=(1 << 64) - 1)
    for nbytes in (1 << 50, 1 << 63):
        with pytest.raises(nc.PoolMemoryError, match=f"{nbytes} bytes") as caught:
            pool.acquire_blocking(nbytes)
        assert isinstance(caught.value, MemoryError)
        with pytest.raises(nc.PoolMemoryError):
            asyncio.run(pool.acquire(nbytes))
    with pytest.raises(nc.ArgumentError):
        pool.acquire_blocking((1 << 63) + 1)
    assert pool.stats()["bytes"] == 0
    pool.acquire_blocking(100).release()
    with pytest.raises(nc.PoolMemoryError):
        make_pool(max_bytes=1 << 63, slab_bytes=1 << 63).acquire_blocking(1)


def test_sizes_of_leases_leave_nothing(make_pool):
    """Not even with the garbage collector off, as servers have it."""
    pool = make_pool()
    pool.acquire_blocking(1).release()
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        for nbytes in range(2, 2000):
            with pool.acquire_blocking(nbytes) as lease:
                assert len(lease.view) == nbytes
            del lease
        assert sys.getallocatedblocks() - before < 200
    finally:
        gc.enable()


def test_pinning_takes_a_gpu(connector):
    if nc.Connector().is_cuda_available:
        pytest.skip("there is a GPU")
    with pytest.raises(nc.LibraryError):
        nc.HostPool(connector, pin=True)


def test_memory_that_nixl_refuses(make_pool, make_connector):
    """The pool is as it was, and may grow later."""
    connector = make_connector()
    pool = make_pool(connector)
    with failing("register_mem"), pytest.raises(nc.RegistrationError):
        pool.acquire_blocking(100)
    assert pool.stats()["bytes"] == 0
    pool.acquire_blocking(100).release()

"""Who waits for a block: threads and tasks take turns, and what they give up comes back."""

import asyncio
import threading
import time
import weakref

import pytest
from processes import until

import nixl_connect as nc
from nixl_connect.pool import slabs
from nixl_connect.pool.waiter import TaskWaiter

DEADLINE = 20
MIB = 1 << 20


def test_whoever_waits_sees_the_pool_close(make_pool):
    pool = make_pool(max_bytes=MIB)
    lease = pool.acquire_blocking(MIB)
    errors = []

    def wait():
        with pytest.raises(nc.ClosedError) as raised:
            pool.acquire_blocking(MIB)
        errors.append(raised)

    async def main():
        waiting = asyncio.ensure_future(pool.acquire(MIB))
        thread = threading.Thread(target=wait)
        thread.start()
        await asyncio.to_thread(until, lambda: pool.stats()["waits"] == 2)
        pool.close()
        with pytest.raises(nc.ClosedError):
            await asyncio.wait_for(waiting, DEADLINE)
        thread.join(DEADLINE)

    asyncio.run(main())
    assert errors
    lease.release()
    assert pool.stats()["leases"] == pool.stats()["leased_bytes"] == 0


def test_waiting_on_a_loop(make_pool):
    pool = make_pool(max_bytes=MIB)

    async def main():
        lease = await pool.acquire(MIB)
        waiting = asyncio.ensure_future(pool.acquire(MIB))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        lease.release()
        (await asyncio.wait_for(waiting, DEADLINE)).release()
        gone = asyncio.ensure_future(pool.acquire(MIB))
        blocked = asyncio.ensure_future(pool.acquire(MIB, timeout=0.1))
        await asyncio.wait_for(gone, DEADLINE)
        with pytest.raises(nc.PoolExhaustedError):
            await asyncio.wait_for(blocked, DEADLINE)
        # A task that is cancelled while it waits loses no block.
        cancelled = asyncio.ensure_future(pool.acquire(MIB))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        gone.result().release()
        await asyncio.wait_for(pool.acquire(MIB), DEADLINE)

    asyncio.run(main())


def beginning():
    """Threads that begin or wait for something in the place of an event loop."""
    return [thread for thread in threading.enumerate() if thread.name == "nixl-begin"]


def test_whoever_gives_up_leaves_no_thread(make_pool):
    """A server whose clients go away while all is in use."""
    pool = make_pool(max_bytes=MIB)
    lease = pool.acquire_blocking(MIB)
    before = beginning()

    async def main():
        waiting = [asyncio.ensure_future(pool.acquire(MIB)) for _ in range(50)]
        await asyncio.sleep(0.05)
        assert beginning() == before
        for task in waiting[:49]:
            task.cancel()
        await asyncio.wait(waiting[:49], timeout=DEADLINE)
        lease.release()
        (await asyncio.wait_for(waiting[49], DEADLINE)).release()

    asyncio.run(main())


def test_none_wakes_for_nothing(make_pool, monkeypatch):
    """However many wait, a block that comes back wakes the one who takes it."""
    pool = make_pool(max_bytes=MIB)
    looks = []
    take = pool._slabs.take
    monkeypatch.setattr(pool._slabs, "take", lambda *a, **k: (looks.append(a), take(*a, **k))[1])

    async def use():
        (await pool.acquire(MIB)).release()

    async def main():
        first = await pool.acquire(MIB)
        tasks = [asyncio.ensure_future(use()) for _ in range(100)]
        await asyncio.sleep(0.05)
        looks.clear()
        first.release()
        del first
        _, pending = await asyncio.wait(tasks, timeout=DEADLINE)
        assert not pending

    asyncio.run(main())
    assert len(looks) <= 110


def test_sizes_that_wait_for_each_other(make_pool):
    """What comes back in one size may make room for another, whoever it wakes first."""
    pool = make_pool(max_bytes=2 * MIB, slab_bytes=MIB)

    async def some_of(tasks, number):
        """Wait until so many have a lease, release these, and take them off the list."""
        end = time.monotonic() + DEADLINE
        while sum(task.done() for task in tasks) < number:
            assert time.monotonic() < end
            await asyncio.sleep(0.001)
        for task in [task for task in tasks if task.done()]:
            task.result().release()
            tasks.remove(task)

    async def main():
        small = [await pool.acquire(4096) for _ in range(MIB // 4096)]
        middle = [await pool.acquire(MIB // 2) for _ in range(2)]
        large = asyncio.ensure_future(pool.acquire(2 * MIB))
        others = [asyncio.ensure_future(pool.acquire(4096)) for _ in range(300)]
        await asyncio.sleep(0.05)
        for lease in middle:
            lease.release()
        middle.clear()
        del lease
        await some_of(others, 256)
        assert not large.done()
        for lease in small:
            lease.release()
        del lease
        small.clear()
        await some_of(others, 44)
        (await asyncio.wait_for(large, DEADLINE)).release()

    asyncio.run(main())


def test_tasks_take_turns(make_pool):
    """Whoever gives a block back and asks for another leaves it to those who wait."""
    pool = make_pool(max_bytes=MIB)
    taken = [0, 0, 0]

    async def use(number):
        while sum(taken) < 300:
            with await pool.acquire(MIB):
                taken[number] += 1
                await asyncio.sleep(0)

    async def main():
        await asyncio.wait_for(asyncio.gather(*map(use, range(3))), DEADLINE)

    asyncio.run(main())
    assert min(taken) > 90


def test_threads_take_turns(make_pool):
    pool = make_pool(max_bytes=MIB)
    taken = [0, 0, 0]

    def use(number):
        while sum(taken) < 300:
            with pool.acquire_blocking(MIB, timeout=DEADLINE):
                taken[number] += 1
                time.sleep(0)

    first = pool.acquire_blocking(MIB)
    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: pool.stats()["waits"] == 3)  # else one may be done before the others begin
    first.release()
    del first
    for thread in threads:
        thread.join(DEADLINE)
    assert min(taken) > 90


def test_sizes_take_turns(make_pool):
    """Even where one needs the whole slab that the other has a little of, again and again."""
    pool = make_pool(max_bytes=MIB, slab_bytes=MIB)
    taken = {4096: 0, MIB: 0}

    async def use(nbytes):
        while sum(taken.values()) < 200:
            with await pool.acquire(nbytes):
                taken[nbytes] += 1
                await asyncio.sleep(0)

    async def main():
        await asyncio.wait_for(asyncio.gather(*map(use, taken)), DEADLINE)

    asyncio.run(main())
    assert min(taken.values()) > 60


def test_what_makes_room_is_gone_before_what_comes(make_pool, monkeypatch):
    """At no time is more registered than the pool may have."""
    pool = make_pool(max_bytes=MIB, slab_bytes=MIB)
    pool.acquire_blocking(4096).release()
    (old,) = map(weakref.ref, pool._slabs._slabs[4096])
    seen = []

    class Slab(slabs.Slab):
        def __init__(self, *arguments, **options):
            seen.append(old())
            super().__init__(*arguments, **options)

    monkeypatch.setattr(slabs, "Slab", Slab)
    pool.acquire_blocking(MIB, timeout=DEADLINE).release()
    assert seen == [None]


@pytest.mark.parametrize(("each", "needed"), [(4096, 1), (MIB // 4, 4), (MIB // 2, 8), (MIB, 16)])
def test_a_burst_adds_no_more_than_it_needs(make_pool, monkeypatch, each, needed):
    """However many ask at once, while the first slab is being registered."""
    pool = make_pool(max_bytes=16 * MIB, slab_bytes=MIB)
    made, go_on = [], threading.Event()

    class Slab(slabs.Slab):
        def __init__(self, *arguments, **options):
            made.append(self)
            assert go_on.wait(DEADLINE)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(slabs, "Slab", Slab)

    async def main():
        tasks = [asyncio.ensure_future(pool.acquire(each)) for _ in range(16)]
        await asyncio.to_thread(until, lambda: pool.stats()["waits"] == 15)
        go_on.set()
        done, pending = await asyncio.wait(tasks, timeout=DEADLINE)
        assert not pending
        for task in done:
            task.result().release()

    asyncio.run(main())
    assert len(made) == needed
    made.clear()


def test_an_acquire_that_was_cancelled_keeps_no_block(make_pool, monkeypatch):
    """Not even with what it found after that, while its exception is kept."""
    pool = make_pool(max_bytes=MIB)
    begun, go_on = threading.Event(), threading.Event()

    class Slab(slabs.Slab):
        def __init__(self, *arguments, **options):
            begun.set()
            assert go_on.wait(DEADLINE)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(slabs, "Slab", Slab)

    async def main():
        task = asyncio.ensure_future(pool.acquire(MIB))
        await asyncio.to_thread(begun.wait, DEADLINE)
        task.cancel()
        kept = await asyncio.gather(task, return_exceptions=True)
        go_on.set()
        (await pool.acquire(MIB, timeout=DEADLINE)).release()
        assert isinstance(kept[0], asyncio.CancelledError)

    asyncio.run(main())


def test_loops_that_are_closed_keep_no_block(make_pool):
    """Whoever waited there is passed over, however many these are."""
    pool = make_pool(max_bytes=MIB)
    lease = pool.acquire_blocking(MIB)
    loop = asyncio.new_event_loop()
    waiting = [loop.create_task(pool.acquire(MIB)) for _ in range(500)]
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(pool.acquire_blocking(MIB, timeout=DEADLINE))
    )
    thread.start()
    until(lambda: pool.stats()["waits"] == 501)
    lease.release()
    thread.join(DEADLINE)
    assert found
    found.pop().release()
    for task in waiting:
        task._log_destroy_pending = False
    del waiting, task


def test_a_loop_that_stands_still_keeps_no_block(make_pool):
    """What it was woken for is had by others, after a while."""
    pool = make_pool(max_bytes=MIB)
    lease = pool.acquire_blocking(MIB)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(pool.acquire(MIB))
    loop.run_until_complete(asyncio.sleep(0.01))
    lease.release()
    pool.acquire_blocking(MIB, timeout=DEADLINE).release()
    waiting.cancel()
    loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    loop.close()


def test_who_waits_on_a_loop_that_is_closed_is_not_there():
    loop = asyncio.new_event_loop()
    waiter = TaskWaiter(64, loop)
    assert waiter.wake()
    assert not waiter.is_gone
    loop.close()
    assert not waiter.wake()
    assert waiter.is_gone
    assert waiter.is_passed_over

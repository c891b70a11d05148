"""Beginnings on other threads: in turn for each peer, and off the loop."""

import asyncio
import threading
import time

import numpy as np
from calls import held_up
from processes import until

import nixl_connect as nc
from nixl_connect.engine.offload import Beginnings


def test_a_job_that_raises_does_not_keep_those_behind_it():
    """As when there is no memory to say what came of it."""
    beginnings = Beginnings()
    first, ran = threading.Event(), threading.Event()

    def fails():
        assert first.wait(10)
        raise MemoryError

    beginnings._queue("peer", fails)
    beginnings._queue("peer", ran.set)
    first.set()
    assert ran.wait(10)
    until(lambda: not beginnings._queues)
    ran.clear()
    beginnings._queue("peer", ran.set)
    assert ran.wait(10)


def test_a_peers_beginnings_are_made_in_turn_and_those_of_peers_side_by_side():
    beginnings = Beginnings()
    order = []
    barrier = threading.Barrier(2)
    queued = threading.Event()

    def call(name):
        def begin(permit):
            permit.need_patience()
            if name in ("a1", "b1"):
                barrier.wait(10)
                queued.wait(10)  # a thread ends when nothing is left for it
            order.append(name)
            return threading.get_ident()

        return begin

    async def main():
        names = ["a1", "a2", "a3", "b1", "b2"]
        tasks = [asyncio.ensure_future(beginnings.begin(call(name), name[0])) for name in names]
        await asyncio.sleep(0.01)
        queued.set()
        return await asyncio.gather(*tasks)

    threads = asyncio.run(main())
    assert [name for name in order if name[0] == "a"] == ["a1", "a2", "a3"]
    assert [name for name in order if name[0] == "b"] == ["b1", "b2"]
    assert len(set(threads)) == 2
    assert threading.get_ident() not in threads


def test_a_registration_that_takes_long_does_not_hold_up_a_loop(make_connector):
    """Neither by what is to begin, nor by what has to be given back because it did not."""
    passive, active = make_connector(), make_connector()
    source, target = np.arange(100), np.zeros(100, int)

    async def main():
        offered = await passive.create_readable(nc.Descriptor(source))
        warm = await active.begin_read(offered.metadata(), nc.Descriptor(target))
        await warm.wait_for_completion(10)
        offered = await passive.create_readable(nc.Descriptor(source))
        metadata = offered.metadata()
        target[:] = 0
        with held_up(active) as leave:
            began = time.monotonic()
            task = asyncio.ensure_future(active.begin_read(metadata, nc.Descriptor(target)))
            await asyncio.sleep(0)
            assert time.monotonic() < began + 1
            assert not task.done()
            leave()
            await (await task).wait_for_completion(10)

    asyncio.run(main())
    assert (source == target).all()


def test_what_nobody_waits_for_any_more_is_not_begun():
    """A task was cancelled while its beginning was in the line of its peer."""
    beginnings = Beginnings()
    first, begun, told = threading.Event(), [], []

    def blocks(permit):
        permit.need_patience()
        assert first.wait(10)

    def begin(permit):
        permit.need_patience()
        try:
            permit.check()
        except nc.OperationCancelledError as error:
            told.append(str(error))
            raise
        begun.append(permit)

    async def main():
        ahead = asyncio.ensure_future(beginnings.begin(blocks, "peer"))
        behind = asyncio.ensure_future(beginnings.begin(begin, "peer"))
        await asyncio.sleep(0.05)
        behind.cancel()
        await asyncio.wait((behind,), timeout=10)
        assert behind.cancelled()
        first.set()
        await asyncio.wait_for(ahead, 10)

    asyncio.run(main())
    until(lambda: not beginnings._queues)
    assert begun == []
    assert told == ["nobody waits for the operation to begin any more"]

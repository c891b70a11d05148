"""Event loops that have the doorbell while they wait for peers, and when the thread has it."""

import asyncio
import contextlib
import socket
import threading
import time

import numpy as np
import pytest
from doorbells import address
from processes import DEADLINE, run_python, until

import nixl_connect as nc
from nixl_connect import OperationStatus


def counters(connector):
    return connector._open()._engine._reactor.counters


def read(peer, operation, size=100):
    """Have a peer read what is offered, to its end; return the digests of what it has read."""
    made = peer.do("active", kind="read", metadata=operation.metadata().model_dump(), sizes=[size])
    peer.do("wait", number=made["id"])
    return peer.do("digests", number=made["id"])["digests"]


async def offer_and_wait(connector, peer, content, digest, seed):
    source = content(seed, 100)
    operation = await connector.create_readable(nc.Descriptor(source))
    reading = asyncio.ensure_future(asyncio.to_thread(read, peer, operation))
    await asyncio.wait_for(operation.wait_for_completion(), DEADLINE)
    assert await reading == [digest(source)]


async def waited_for(connector, source):
    """Offer memory, and wait for it with the doorbell; return the operation and the waiting task.

    On a busy machine a loop is taken to be busy, and does not get the doorbell for a second.
    """
    end = time.monotonic() + DEADLINE
    while True:
        operation = await connector.create_readable(nc.Descriptor(source))
        waiting = asyncio.ensure_future(operation.wait_for_completion())
        await asyncio.sleep(0.01)
        if counters(connector)["lent"]:
            return operation, waiting
        await abandon(operation, waiting)
        assert time.monotonic() < end, "the loop does not get the doorbell"
        await asyncio.sleep(0.1)


async def abandon(operation, waiting):
    operation.cancel()
    with pytest.raises(nc.OperationCancelledError):
        await waiting


RINGS = """
import contextlib, socket, sys, time
name = bytes.fromhex(sys.argv[1])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as anybody:
    for _ in range(50):
        with contextlib.suppress(BlockingIOError):
            anybody.sendto(b"x", name)
        time.sleep(0.002)
"""


def ring_from_elsewhere(connector):
    """Ring fifty times, from another process."""
    run_python("-c", RINGS, address(connector).hex())


def ring(connector):
    """Ring a connector's doorbell, for nothing; where it is full, it has been rung."""
    name = address(connector)
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as anybody, contextlib.suppress(BlockingIOError):
        anybody.sendto(b"x", name)


def test_a_loop_that_waits_answers(connector, peer, content, digest):
    async def main():
        end = time.monotonic() + DEADLINE
        seed = 0
        # Now and then it is taken to be busy: other threads of this process run, too.
        while seed < 50 or counters(connector)["answers"] == 0:
            assert time.monotonic() < end, "the loop hears nobody"
            await offer_and_wait(connector, peer, content, digest, seed)
            seed += 1

    asyncio.run(main())
    until(lambda: not counters(connector)["lent"])


def test_the_thread_gets_the_doorbell_back_when_nobody_waits(connector, peer, content, digest):
    async def main():
        await offer_and_wait(connector, peer, content, digest, 1)
        await abandon(*await waited_for(connector, bytearray(8)))

    asyncio.run(main())
    until(lambda: not counters(connector)["lent"])
    before = counters(connector)["rings"]
    ring(connector)
    until(lambda: counters(connector)["rings"] > before)


def test_both_ways_at_once(start_peer, make_connector, content, digest):
    """The thread looks after messages of one connector while a loop takes what comes for it."""
    peer, connector = start_peer(), make_connector()

    async def main():
        target = np.zeros(100, np.uint8)
        for seed in range(300):
            there = await asyncio.to_thread(
                peer.do, "passive", kind="readable", sizes=[100], seed=seed
            )
            told = nc.RdmaMetadata.model_validate(there["metadata"])
            target[:] = 0
            ours = asyncio.ensure_future(offer_and_wait(connector, peer, content, digest, seed))
            read = await connector.begin_read(told, nc.Descriptor(target))
            await asyncio.wait_for(read.wait_for_completion(), DEADLINE)
            assert (target == content(seed, 100)).all()
            await ours
            await asyncio.to_thread(peer.do, "wait", number=there["id"])

    asyncio.run(main())


def test_a_busy_loop_leaves_it_to_the_thread(connector, peer, content, digest):
    """What peers do is seen while the loop computes, if a few milliseconds later."""

    async def main():
        # A first one, so that the peer is met and rings.
        await offer_and_wait(connector, peer, content, digest, 1)
        source = content(2, 100)
        operation, waiting = await waited_for(connector, source)
        read(peer, operation)  # the loop stands still
        until(lambda: operation.status == OperationStatus.COMPLETE, 2)
        assert not waiting.done()
        await asyncio.wait_for(waiting, DEADLINE)

    asyncio.run(main())


def test_a_busy_loop_does_not_keep_a_peer_waiting_that_needs_it(connector):
    """The thread takes the doorbell, and loops do not get it again for a while."""

    async def main():
        operation, waiting = await waited_for(connector, bytearray(8))
        ring_from_elsewhere(connector)  # the loop stands still
        until(lambda: not counters(connector)["lent"], 2)
        await asyncio.sleep(0.01)
        assert not counters(connector)["lent"]
        await abandon(operation, waiting)

    asyncio.run(main())


def test_who_rings_for_nothing_does_not_keep_a_loop_up(connector):
    async def main():
        operation, waiting = await waited_for(connector, bytearray(8))
        began = time.monotonic()
        await asyncio.to_thread(ring_from_elsewhere, connector)
        seen = counters(connector)
        await abandon(operation, waiting)
        return seen, time.monotonic() - began

    seen, seconds = asyncio.run(main())
    assert seen["answers"] <= 4 * (1 + seconds)
    assert seen["rings"] >= 10  # the thread goes on to hear them, several at a time when late


def test_whom_its_own_process_rings_does_not_get_it(connector):
    """Who moves the bytes may be on the loop's own thread, and need the thread of this side."""

    async def main():
        operation, waiting = await waited_for(connector, bytearray(8))
        before = counters(connector)["rings"]
        ring(connector)
        until(lambda: counters(connector)["rings"] > before)  # the loop stands still
        assert not counters(connector)["lent"]
        await abandon(operation, waiting)

    asyncio.run(main())


def test_a_blocking_wait_leaves_it_to_the_thread(connector, peer, content, digest):
    source = content(3, 100)
    told = []

    async def main():
        operation, waiting = await waited_for(connector, source)
        with connector.create_readable_blocking(nc.Descriptor(source)) as blocking:
            waiter = threading.Thread(
                target=lambda: told.append(blocking.wait_for_completion_blocking(DEADLINE))
            )
            waiter.start()
            until(lambda: not counters(connector)["lent"])
            assert await asyncio.to_thread(read, peer, blocking) == [digest(source)]
            await asyncio.to_thread(waiter.join, DEADLINE)
        assert len(told) == 1
        assert await asyncio.to_thread(read, peer, operation) == [digest(source)]
        await asyncio.wait_for(waiting, DEADLINE)

    asyncio.run(main())


def test_several_loops_and_several_peers(start_peer, make_connector, content, digest):
    """Each wait ends soon, whoever has the doorbell: what one peer brings does not hide others."""
    connector, peers = make_connector(), [start_peer() for _ in range(3)]
    ended = []

    async def main(peer):
        for seed in range(60):
            await offer_and_wait(connector, peer, content, digest, seed)
            ended.append(seed)

    threads = [threading.Thread(target=asyncio.run, args=(main(peer),)) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * DEADLINE)
        assert not thread.is_alive()
    assert sorted(ended) == sorted([*range(60)] * 3)


def test_a_loop_that_is_closed_while_it_has_it(connector, peer, content, digest):
    async def leave():
        return await waited_for(connector, bytearray(8))

    loop = asyncio.new_event_loop()
    operation, task = loop.run_until_complete(leave())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    operation.cancel()
    asyncio.run(offer_and_wait(connector, peer, content, digest, 4))

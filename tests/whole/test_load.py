"""Many operations in flight at once, with many processes, every byte compared."""

import asyncio
import threading
import time

import numpy as np
import pytest

import nixl_connect as nc

PEERS = 8


def sizes(count):
    """From one byte to some pages, in no order."""
    return [1 + (i * 7919) % 5000 for i in range(count)]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["readable", "writable"])
def test_ten_thousand_in_flight(connector, start_peer, content, digest, kind):
    each = sizes(1250)
    peers = [start_peer() for _ in range(PEERS)]
    for number, peer in enumerate(peers):
        peer.send("many", kind=kind, sizes=each, seed=10_000 * number)
    told = [peer.answer(120)["made"] for peer in peers]
    seeds = [10_000 * number + i for number in range(PEERS) for i in range(len(each))]
    metadata = [nc.RdmaMetadata.model_validate(item["metadata"]) for made in told for item in made]
    if kind == "readable":
        arrays = [np.zeros(size, np.uint8) for size in each * PEERS]
    else:
        arrays = [content(seed, size) for seed, size in zip(seeds, each * PEERS, strict=True)]

    async def one(item, array):
        if kind == "readable":
            operation = await connector.begin_read(item, nc.Descriptor(array))
        else:
            operation = await connector.begin_write(nc.Descriptor(array), item)
        await operation.wait_for_completion(100)

    async def main():
        # The peers take turns, so that all of them are busy at once.
        order = [n * len(each) + i for i in range(len(each)) for n in range(PEERS)]
        await asyncio.gather(*(one(metadata[i], arrays[i]) for i in order))

    asyncio.run(main())
    if kind == "readable":
        for seed, array in zip(seeds, arrays, strict=True):
            assert (array == content(seed, array.size)).all()
    for number, peer in enumerate(peers):
        mine = arrays[number * len(each) : (number + 1) * len(each)]
        digests = peer.do("wait_all", deadline=60)["digests"]
        assert digests == [digest(array) for array in mine]
        assert peer.do("stats")["stats"]["operations"]["waiting"] == 0
    stats = connector.stats()
    assert stats["operations"]["held"] == stats["registrations"]["count"] == 0
    assert stats["peers"]["count"] == PEERS


@pytest.mark.timeout(60)
def test_a_burst_while_its_peer_is_connected_is_not_a_thread_each(
    make_connector, content, monkeypatch
):
    passive, active = make_connector(), make_connector()
    sources = [content(i, 100) for i in range(3000)]
    arrays = [np.zeros(100, np.uint8) for _ in sources]
    most = 0

    async def main():
        nonlocal most
        readable = [await passive.create_readable(nc.Descriptor(source)) for source in sources]
        metadata = [operation.metadata() for operation in readable]
        # The first operation opens what there is to slow down.
        await active.create_readable(nc.Descriptor(arrays[0]))
        peers = active._connection._engine.peers
        load = peers._load

        def load_slowly(*arguments):
            nonlocal most
            end = time.monotonic() + 1
            while time.monotonic() < end:
                most = max(most, threading.active_count())
                time.sleep(0.01)
            load(*arguments)

        monkeypatch.setattr(peers, "_load", load_slowly)

        async def one(item, array):
            operation = await active.begin_read(item, nc.Descriptor(array))
            await operation.wait_for_completion(30)

        before = threading.active_count()
        await asyncio.gather(*map(one, metadata, arrays))
        assert 0 < most < before + 5
        for operation in readable:
            await operation.wait_for_completion(30)

    asyncio.run(main())
    for source, array in zip(sources, arrays, strict=True):
        assert (source == array).all()


@pytest.mark.timeout(30)
def test_beginnings_behind_one_that_hangs_end_in_time(make_connector, content, monkeypatch):
    passive = make_connector(quarantine=0.1)
    other, active = make_connector(), make_connector()
    source = content(1, 100)
    hangs = threading.Event()

    async def main():
        readable = [await passive.create_readable(nc.Descriptor(source)) for _ in range(20)]
        elsewhere = await other.create_readable(nc.Descriptor(source))
        await active.create_readable(nc.Descriptor(source))
        peers = active._connection._engine.peers
        load = peers._load

        def load_late(peer, *arguments):
            if peer.name == passive._connection.name:
                assert hangs.wait(20)
            load(peer, *arguments)

        monkeypatch.setattr(peers, "_load", load_late)

        async def begin(operation, timeout):
            array = np.zeros(100, np.uint8)
            return await active.begin_read(
                operation.metadata(), nc.Descriptor(array), timeout=timeout
            )

        tasks = [asyncio.ensure_future(begin(operation, 0.5)) for operation in readable]
        # Another peer's is not behind them.
        await (await begin(elsewhere, 10)).wait_for_completion(10)
        for task in tasks:
            with pytest.raises(nc.TransferTimeoutError):
                await asyncio.wait_for(task, 10)
        assert not hangs.is_set()
        hangs.set()
        # None of those is begun late, and the peer is as good as new.
        await (await begin(readable[0], 10)).wait_for_completion(10)
        await readable[0].wait_for_completion(10)
        assert active.stats()["operations"]["held"] == 0
        assert {operation.status for operation in readable[1:]} == {nc.OperationStatus.INITIALIZED}

    try:
        asyncio.run(main())
    finally:
        hangs.set()


@pytest.mark.timeout(120)
def test_eight_processes_read_from_one(connector, start_peer, content, digest):
    """One passive side, whose peers all come at once, again and again."""
    peers = [start_peer() for _ in range(PEERS)]
    for turn in range(5):
        arrays = [content(turn * 100 + i, 20_000) for i in range(PEERS * 20)]
        readable = [connector.create_readable_blocking(nc.Descriptor(array)) for array in arrays]
        for i, operation in enumerate(readable):
            told = operation.metadata().model_dump()
            peers[i % PEERS].send("active", kind="read", metadata=told, sizes=[20_000])
        for i in range(len(readable)):
            peers[i % PEERS].answer(30)
        for operation in readable:
            operation.wait_for_completion_blocking(30)
        for number, peer in enumerate(peers):
            expected = [digest(array) for array in arrays[number::PEERS]]
            assert peer.do("wait_all", deadline=60)["digests"][-len(expected) :] == expected

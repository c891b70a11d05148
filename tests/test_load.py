"""Many operations in flight at once, with many processes, every byte compared."""

import asyncio

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

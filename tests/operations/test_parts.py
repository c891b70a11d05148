"""Transfers of a part of what a peer offers: by index, or by bytes within a descriptor."""

import asyncio

import numpy as np
import pytest
from processes import DEADLINE

import nixl_connect as nc
from nixl_connect import Blocks, Descriptor

SIZES = [100, 50, 4096, 1]


@pytest.fixture
def sources(content):
    return [content(i, size) for i, size in enumerate(SIZES)]


@pytest.fixture
def offered(make_connector, sources):
    """What offers them: nobody else is to hold the operation."""
    owner = make_connector()
    return lambda: owner.create_readable_blocking([Descriptor(x) for x in sources], transfers=None)


def parse(metadata):
    return nc.RdmaMetadata.model_validate_json(metadata.model_dump_json())


PARTS = [
    [0],
    [3, 1],
    [(0, 10, 20)],
    [(2, 0, 4096), (0, 99, 1)],
    [2, (0, 0, 1), (0, 1, 99), 1],
    [(0, 0, 50), (0, 50, 50)],
    np.array([1, 2]),
    ((np.int32(0), 5, np.uint8(6)),),
]


def wanted(sources, part):
    if np.ndim(part) == 0:
        return sources[part]
    i, offset, length = part
    return sources[i][offset : offset + length]


@pytest.mark.parametrize("parts", PARTS, ids=range(len(PARTS)))
@pytest.mark.parametrize("form", ["blocking", "asyncio", "prepared"])
def test_reads(connector, offered, sources, parts, form):
    expected = [wanted(sources, part) for part in parts]
    targets = [np.zeros_like(x) for x in expected]
    operation = offered()
    metadata, locals_ = parse(operation.metadata()), [Descriptor(x) for x in targets]

    async def read():
        reading = await connector.begin_read(metadata, locals_, parts=parts)
        await reading.wait_for_completion(DEADLINE)

    if form == "asyncio":
        asyncio.run(read())
    elif form == "prepared":
        with connector.prepare_read_blocking(metadata, locals_, parts=parts) as prepared:
            prepared.transfer_blocking(DEADLINE)
    else:
        with connector.begin_read_blocking(metadata, locals_, parts=parts) as reading:
            reading.wait_for_completion_blocking(DEADLINE)
    for target, it in zip(targets, expected, strict=True):
        assert (target == it).all()


@pytest.mark.parametrize("prepared", [False, True])
def test_several_write_to_separate_parts(make_connector, content, prepared):
    owner, movers = make_connector(), [make_connector() for _ in range(4)]
    target, source = np.zeros(4000, np.uint8), content(1, 4000)
    operation = owner.create_writable_blocking(Descriptor(target), transfers=4)
    metadata = parse(operation.metadata())
    for i, mover in enumerate(movers):
        piece = Descriptor(source[1000 * i : 1000 * (i + 1)])
        parts = [(0, 1000 * i, 1000)]
        if prepared:
            with mover.prepare_write_blocking(piece, metadata, parts=parts) as write:
                write.transfer_blocking(DEADLINE)
        else:
            with mover.begin_write_blocking(piece, metadata, parts=parts) as write:
                write.wait_for_completion_blocking(DEADLINE)
    operation.wait_for_completion_blocking(DEADLINE)
    assert (target == source).all()


def test_between_processes(start_peer, connector, content):
    peer = start_peer()
    made = peer.do("passive", kind="readable", sizes=[100, 200], seed=5)
    target = np.zeros(30, np.uint8)
    metadata = nc.RdmaMetadata.model_validate(made["metadata"])
    with connector.begin_read_blocking(
        metadata, Descriptor(target), parts=[(1, 100, 30)]
    ) as operation:
        operation.wait_for_completion_blocking(DEADLINE)
    assert (target == content(6, 200)[100:130]).all()
    peer.do("wait", number=made["id"])


def test_of_blocks_and_of_many_rows(make_connector, content):
    owner, mover = make_connector(), make_connector()
    cache = content(2, 64 * 100)
    blocks = Blocks(cache, 64, np.arange(100)[::-1])
    operation = owner.create_readable_blocking(blocks, transfers=None)
    rows = owner.create_readable_blocking(
        [Descriptor(cache[64 * i : 64 * i + 64]) for i in range(100)], transfers=None
    )
    for metadata, first in ((parse(operation.metadata()), 92), (parse(rows.metadata()), 7)):
        target = np.zeros((2, 64), np.uint8)
        with mover.begin_read_blocking(
            metadata, [Descriptor(row) for row in target], parts=[7, (99, 0, 64)]
        ) as read:
            read.wait_for_completion_blocking(DEADLINE)
        assert (target[0] == cache[64 * first : 64 * first + 64]).all()
        last = 0 if first == 92 else 99
        assert (target[1] == cache[64 * last : 64 * last + 64]).all()
        both = np.zeros(128, np.uint8)
        with mover.begin_read_blocking(metadata, Blocks(both, 64, [1, 0]), parts=[7, 99]) as read:
            read.wait_for_completion_blocking(DEADLINE)
        assert (both[64:] == target[0]).all()
        assert (both[:64] == target[1]).all()


BAD = [
    ([], nc.ArgumentError, "empty"),
    ([4], nc.ArgumentError, r"parts\[0\].*4 descriptors"),
    ([-1], nc.ArgumentError, r"parts\[0\]"),
    ([0, 0], nc.ArgumentError, "overlap"),
    ([1, (0, 0, 60), (0, 59, 41)], nc.ArgumentError, r"parts\[1\] and parts\[2\] overlap"),
    ([(0, 0, 0)], nc.ArgumentError, "0 bytes"),
    ([(0, 90, 11)], nc.ArgumentError, "11 bytes from 90"),
    ([(0, -1, 5)], nc.ArgumentError, "from -1"),
    ([(0, 0, -5)], nc.ArgumentError, "-5 bytes"),
    ([(0, 1 << 64, 1)], nc.ArgumentError, "from 18446744073709551616"),
    ([(0, 1)], nc.ArgumentTypeError, r"parts\[0\]"),
    ([(0, 1, 2, 3)], nc.ArgumentTypeError, r"parts\[0\]"),
    ([1.0], nc.ArgumentTypeError, r"parts\[0\]"),
    ([True], nc.ArgumentTypeError, r"parts\[0\]"),
    (["0"], nc.ArgumentTypeError, r"parts\[0\]"),
    ([None], nc.ArgumentTypeError, r"parts\[0\]"),
    (3, nc.ArgumentTypeError, "sequence"),
    ([0, 1], nc.ArgumentError, "1 descriptors, but parts has 2"),
    ([2], nc.ArgumentError, r"100 bytes, but parts\[0\] has 4096"),
]


@pytest.mark.parametrize(("parts", "error", "text"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_moves_nothing(connector, offered, parts, error, text):
    target, operation = np.zeros(100, np.uint8), offered()
    for call in (connector.begin_read_blocking, connector.prepare_read_blocking):
        with pytest.raises(error, match=text):
            call(operation.metadata(), Descriptor(target), parts=parts)
    assert not target.any()
    assert operation.transfers_done == 0


KEYS = [b"0123456789abcdef"]


def test_the_seal_comes_first(make_connector):
    owner, mover = make_connector(keys=KEYS), make_connector(keys=[b"another key of 16"])
    operation = owner.create_readable_blocking(Descriptor(bytearray(8)))
    with pytest.raises(nc.AuthenticationError):
        mover.begin_read_blocking(operation.metadata(), Descriptor(bytearray(8)), parts=[])
    fitting = make_connector(keys=KEYS)
    target = bytearray(4)
    with fitting.begin_read_blocking(
        operation.metadata(), Descriptor(target), parts=[(0, 4, 4)]
    ) as read:
        read.wait_for_completion_blocking(DEADLINE)
    operation.wait_for_completion_blocking(DEADLINE)


def test_parts_of_this_process_that_overlap_what_is_read_into(connector):
    memory = np.arange(100, dtype=np.uint8)
    operation = connector.create_readable_blocking(Descriptor(memory), transfers=None)
    with pytest.raises(nc.ArgumentError, match="overlaps"):
        connector.begin_read_blocking(
            operation.metadata(), Descriptor(memory[5:15]), parts=[(0, 10, 10)]
        )
    with connector.begin_read_blocking(
        operation.metadata(), Descriptor(memory[50:60]), parts=[(0, 10, 10)]
    ) as read:
        read.wait_for_completion_blocking(DEADLINE)
    assert (memory[50:60] == np.arange(10, 20)).all()
    operation.cancel()


def test_more_lanes_than_one(make_connector, content, monkeypatch):
    from nixl_connect.peers import lanes

    monkeypatch.setattr(lanes, "COUNT", 2)
    owner, mover = make_connector(), make_connector()
    source, target = content(3, 40 << 20), np.zeros(16 << 20, np.uint8)
    operation = owner.create_readable_blocking(Descriptor(source), transfers=None)
    for offset in (0, 1 << 20, 24 << 20):
        target[:] = 0
        with mover.begin_read_blocking(
            operation.metadata(), Descriptor(target), parts=[(0, offset, 16 << 20)]
        ) as read:
            read.wait_for_completion_blocking(DEADLINE)
        assert (target == source[offset : offset + (16 << 20)]).all()
    operation.cancel()

"""Memory that overlaps: refused where nobody could know what arrives, before anything moves."""

import asyncio

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from processes import told

import nixl_connect as nc
from nixl_connect._native.overlaps import between, within
from nixl_connect._native.packing import Regions

DEADLINE = 20
TOP = 2**64 - 1
MIB = 1 << 20


# --- the rows themselves ---------------------------------------------------------------------

# Few enough addresses that they meet often, and some that differ in every digit.
START = st.integers(1, 40) | st.sampled_from([1 << 20, (1 << 20) + 3, 1 << 45, (1 << 63) + 5])
ROW = st.tuples(START, st.integers(1, 8), st.integers(0, 1) | st.just(TOP))


def meet(one, other):
    """Whether two rows have a byte in common."""
    return one[2] == other[2] and one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


@given(st.lists(ROW, min_size=1, max_size=12))
@example([(TOP - 8, 8, 0), (1, 1, 0), (TOP - 9, 1, 0)])
@example([(TOP - 8, 8, 0), (1, 1, 0), (TOP - 9, 2, 0)])
def test_rows_that_meet(rows):
    found = within(Regions(rows))
    pairs = {
        frozenset((i, j))
        for i, one in enumerate(rows)
        for j, other in enumerate(rows)
        if i < j and meet(one, other)
    }
    assert bool(pairs) == (found is not None)
    assert found is None or frozenset(found) in pairs


@st.composite
def counterparts(draw):
    """Sources and targets as long as these, of which no two meet."""
    targets = []
    for row in draw(st.lists(ROW, min_size=1, max_size=12)):
        if not any(meet(row, other) for other in targets):
            targets.append(row)
    sources = [
        target if draw(st.booleans()) else (draw(START), target[1], draw(st.integers(0, 1)))
        for target in targets
    ]
    return sources, targets


@given(counterparts())
def test_sources_that_meet_targets(rows):
    sources, targets = rows
    found = between(Regions(sources), Regions(targets))
    pairs = {
        (i, j)
        for i, one in enumerate(sources)
        for j, other in enumerate(targets)
        if meet(one, other) and not (i == j and one == other)
    }
    assert bool(pairs) == (found is not None)
    assert found is None or found in pairs


@pytest.mark.parametrize("order", ["rising", "falling", "any"])
def test_many_rows(order):
    count = 50_000
    rows = np.empty((count, 3), np.uint64)
    rows[:, 0] = 0x7F00_0000_0000 + 4096 * np.arange(count, dtype=np.uint64)
    rows[:, 1], rows[:, 2] = 4096, 0
    if order == "falling":
        rows = rows[::-1].copy()
    if order == "any":
        rows = np.random.default_rng(0).permutation(rows)
    assert within(Regions(rows)) is None
    assert between(Regions(rows), Regions(rows)) is None
    others = rows.copy()
    others[:, 0] += np.uint64(4096 * count)
    assert between(Regions(others), Regions(rows)) is None
    others[777, 0] = rows[4_321, 0] + 4095
    found = between(Regions(others), Regions(rows))
    assert found is not None
    assert found[0] == 777
    rows[123, 0] -= np.uint64(1)
    found = within(Regions(rows))
    assert found is not None
    assert 123 in found


# --- operations -------------------------------------------------------------------------------


def parts(array, *slices):
    return [nc.Descriptor(array[start:end]) for start, end in slices]


@pytest.fixture(params=["one connector", "two connectors"])
def pair(request, make_connector):
    one = make_connector()
    return one, one if request.param == "one connector" else make_connector()


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("size", [1, 9, 5000, 300_001, 9 * MIB])
def test_a_part_of_itself(pair, kind, size):
    """Whatever the offset; one that leaves nothing in common is fine, and so is the same memory."""
    owner, mover = pair
    memory = np.random.default_rng(0).integers(0, 256, 2 * size + 16, np.uint8)
    before = memory.copy()
    offered = {
        "read": owner.create_readable_blocking, "write": owner.create_writable_blocking
    }[kind]  # fmt: skip

    def move(theirs, mine):
        with offered(nc.Descriptor(memory[theirs : theirs + size])) as passive:
            local = nc.Descriptor(memory[mine : mine + size])
            active = (
                mover.begin_read_blocking(passive.metadata(), local)
                if kind == "read"
                else mover.begin_write_blocking(local, passive.metadata())
            )
            active.wait_for_completion_blocking(DEADLINE)
            passive.wait_for_completion_blocking(DEADLINE)

    for offset in {1, max(1, size // 3), size - 1} - {0, size}:
        for theirs, mine in ((offset, 0), (0, offset)):
            with pytest.raises(nc.ArgumentError, match=r"local_descriptors\[0\] overlaps"):
                move(theirs, mine)
    assert (memory == before).all()
    move(5, 5)
    assert (memory == before).all()
    move(0, size)
    source, target = (0, size) if kind == "read" else (size, 0)
    before[target : target + size] = before[source : source + size]
    assert (memory == before).all()


def test_one_row_of_many(pair):
    """That of a source and that of another target, be they the same."""
    owner, mover = pair
    memory = np.arange(100, dtype=np.uint8)
    before = memory.copy()
    source = parts(memory, (0, 10), (10, 20), (20, 30))
    with owner.create_readable_blocking(source) as offered:
        for targets, i, j in (
            (((40, 50), (29, 39), (50, 60)), 1, 2),
            (((40, 50), (60, 70), (0, 10)), 2, 0),
            (((10, 20), (0, 10), (20, 30)), None, None),
        ):
            with pytest.raises(nc.ArgumentError) as caught:
                mover.begin_read_blocking(offered.metadata(), parts(memory, *targets))
            if i is not None:
                assert f"local_descriptors[{i}] overlaps remote_metadata.descriptors[{j}]" in str(
                    caught.value
                )
        assert (memory == before).all()
        # The first is its own counterpart, and sources may be as they like.
        read = mover.begin_read_blocking(
            offered.metadata(), parts(memory, (0, 10), (50, 60), (40, 50))
        )
        read.wait_for_completion_blocking(DEADLINE)
    before[50:60], before[40:50] = before[10:20], before[20:30]
    assert (memory == before).all()


TWICE = (((0, 10), (9, 19)), ((0, 10), (0, 10)), ((5, 15), (30, 40), (0, 6)), ((0, 40), (3, 4)))


@pytest.mark.parametrize("slices", TWICE)
def test_destinations_that_overlap(connector, peer, slices):
    """Of a read, of what a peer may write to, and of a write to a peer that has not looked."""
    memory = np.zeros(100, np.uint8)
    sizes = [end - start for start, end in slices]
    text = r"local_descriptors\[\d\] and \[\d\] overlap"
    source = peer.do("passive", kind="readable", sizes=sizes)
    with pytest.raises(nc.ArgumentError, match=text):
        connector.begin_read_blocking(told(source), parts(memory, *slices))
    with pytest.raises(nc.ArgumentError, match=text):
        connector.prepare_read_blocking(told(source), parts(memory, *slices))
    with pytest.raises(nc.ArgumentError, match=text):
        connector.create_writable_blocking(parts(memory, *slices))

    async def main():
        with pytest.raises(nc.ArgumentError, match=text):
            await connector.begin_read(told(source), parts(memory, *slices))
        with pytest.raises(nc.ArgumentError, match=text):
            await connector.create_writable(parts(memory, *slices))

    asyncio.run(main())
    target = peer.do("passive", kind="writable", sizes=[100] * len(sizes))
    metadata = target["metadata"]
    start = metadata["descriptors"][0]["ptr"]
    metadata["descriptors"] = [
        {"device": "cpu", "ptr": start + first, "size": last - first} for first, last in slices
    ]
    source = [nc.Descriptor(bytes(size)) for size in sizes]
    for begin in (connector.begin_write_blocking, connector.prepare_write_blocking):
        with pytest.raises(nc.ArgumentError, match=r"remote_metadata.descriptors\[\d\] and \[\d"):
            begin(source, told(target))
    assert not memory.any()


@pytest.mark.parametrize("slices", TWICE)
def test_sources_may_overlap(connector, peer, slices, content, digest):
    """They are only read, here as there."""
    memory = content(0, 100)
    pieces = [memory[start:end] for start, end in slices]
    sizes = [piece.size for piece in pieces]
    target = peer.do("passive", kind="writable", sizes=sizes)
    write = connector.begin_write_blocking(parts(memory, *slices), told(target))
    write.wait_for_completion_blocking(DEADLINE)
    peer.do("wait", number=target["id"])
    expected = [digest(piece) for piece in pieces]
    assert peer.do("digests", number=target["id"])["digests"] == expected
    with connector.create_readable_blocking(parts(memory, *slices)) as offered:
        read = peer.do("active", kind="read", metadata=offered.metadata().model_dump(), sizes=sizes)
        peer.do("wait", number=read["id"])
        assert peer.do("digests", number=read["id"])["digests"] == expected


def test_prepared(pair):
    owner, mover = pair
    memory = np.arange(100, dtype=np.uint8)
    with owner.create_readable_blocking(nc.Descriptor(memory[:50])) as offered:
        with pytest.raises(nc.ArgumentError, match="overlaps"):
            mover.prepare_read_blocking(offered.metadata(), nc.Descriptor(memory[49:99]))
        into = nc.Descriptor(memory[50:])
        with mover.prepare_read_blocking(offered.metadata(), into) as read:
            read.transfer_blocking(DEADLINE)
    assert (memory[50:] == np.arange(50)).all()


def test_blocks(pair):
    """Those of one cache, merged into few rows or not."""
    owner, mover = pair
    cache = np.arange(64 * 100, dtype=np.uint8)
    before = cache.copy()

    def move(there, here):
        with owner.create_readable_blocking(nc.Blocks(cache, 64, there)) as offered:
            read = mover.begin_read_blocking(offered.metadata(), nc.Blocks(cache, 64, here))
            read.wait_for_completion_blocking(DEADLINE)

    for there, here in (
        (range(10), range(5, 15)),
        (range(10), range(9, -1, -1)),
        ([0, 1, 2], [3, 4, 1]),
        ([0, 1, 2], [10, 20, 10]),
    ):
        with pytest.raises(nc.ArgumentError, match="overlap"):
            move(there, here)
    assert (cache == before).all()
    move(range(10), range(10))
    assert (cache == before).all()
    move([0, 0, 1, 5], [10, 11, 12, 5])
    expected = before.reshape(100, 64)
    expected[[10, 11, 12]] = expected[[0, 0, 1]]
    assert (cache == before).all()


def test_windows_that_overlap(connector):
    """Of a stride that is less than a block."""
    cache = np.zeros(6400, np.uint8)
    windows = nc.Blocks(cache, 64, range(10), stride=32)
    with pytest.raises(nc.ArgumentError, match=r"\[0\] and \[1\] overlap"):
        connector.create_writable_blocking(windows)
    connector.create_readable_blocking(windows).cancel()


def test_the_same_addresses_in_another_process(connector, peer):
    """They say nothing of this one's memory."""
    made = peer.do("passive", kind="readable", sizes=[4096], seed=3)
    metadata = made["metadata"]
    address = metadata["descriptors"][0]["ptr"]
    # Its metadata as if of memory that lies half in this process's.
    memory = np.zeros(8192, np.uint8)
    metadata["descriptors"][0]["ptr"] = memory.ctypes.data + 100
    with pytest.raises(nc.MetadataError, match="did not register"):
        connector.begin_read_blocking(told(made), nc.Descriptor(memory[:4096]))
    metadata["descriptors"][0]["ptr"] = address
    metadata["notification_key"] += "x"
    read = connector.begin_read_blocking(told(made), nc.Descriptor(memory[:4096]))
    read.wait_for_completion_blocking(DEADLINE)
    assert memory[:4096].any()


def test_namesakes_of_one_process(make_connector):
    """Whatever they are called."""
    namesakes = [make_connector("namesake") for _ in range(2)]
    mover = make_connector()
    memory = np.zeros(100, np.uint8)
    for owner in namesakes:
        offered = owner.create_readable_blocking(nc.Descriptor(memory[:60]))
        with pytest.raises(nc.ArgumentError, match="overlaps"):
            mover.begin_read_blocking(offered.metadata(), nc.Descriptor(memory[40:]))

"""Blocks of a paged memory: rows without an object for each, packed, told, sealed and moved."""

import array
import asyncio
import pickle

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect._native.packing import Regions, coalesce
from nixl_connect.memory.tables import BlockDescriptors, Group

DEADLINE = 20
BLOCK = 512


def cache(blocks=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, blocks * BLOCK, dtype=np.uint8)


def picked(memory, indices, stride=BLOCK):
    return np.concatenate([memory[i * stride : i * stride + BLOCK] for i in indices])


INDICES = {
    "range": range(3, 40, 4),
    "falling range": range(40, 3, -4),
    "list": [5, 1, 63, 0],
    "tuple": (7,),
    "int64": np.array([9, 2, 33]),
    "int32": np.array([9, 2, 33], np.int32),
    "uint8": np.array([9, 2, 33], np.uint8),
    "int8": np.array([9, 2, 33], np.int8),
    "uint64": np.array([9, 2, 33], np.uint64),
    "strided": np.arange(60)[::-7],
    "array": array.array("i", [4, 5, 6]),
    "repeated": [3, 3, 3],
}


@pytest.mark.parametrize("name", INDICES)
def test_rows(name):
    memory = cache()
    indices = INDICES[name]
    blocks = nc.Blocks(memory, BLOCK, indices)
    assert len(blocks) == len(indices)
    assert blocks.size == len(indices) * BLOCK
    assert blocks.device == nc.Device("cpu")
    expected = [(memory.ctypes.data + int(i) * BLOCK, BLOCK, 0) for i in indices]
    assert list(map(tuple, np.asarray(blocks._regions).tolist())) == expected


def test_a_stride(connector):
    memory = cache(10)
    blocks = nc.Blocks(memory, 100, range(10), stride=BLOCK)
    assert [row[0] - memory.ctypes.data for row in blocks._regions] == list(
        range(0, 10 * BLOCK, BLOCK)
    )
    assert blocks.size == 1000
    with pytest.raises(nc.ArgumentError, match="indices"):
        nc.Blocks(memory[:-413], 100, range(10), stride=BLOCK)
    nc.Blocks(memory[:-412], 100, range(10), stride=BLOCK)  # the last one just fits


def test_what_changes_later_is_not_seen():
    memory = cache()
    indices = np.array([1, 2, 3])
    blocks = nc.Blocks(memory, BLOCK, indices)
    indices[:] = 60
    assert blocks._regions[0][0] == memory.ctypes.data + BLOCK


@pytest.mark.parametrize(
    ("size", "indices", "options", "error", "words"),
    [
        (BLOCK, [], {}, nc.ArgumentError, "empty"),
        (BLOCK, range(0), {}, nc.ArgumentError, "indices must not be empty"),
        (BLOCK, [], {}, nc.ArgumentError, "indices must not be empty"),
        (BLOCK, [64], {}, nc.ArgumentError, "64 blocks"),
        (BLOCK, [0, -1], {}, nc.ArgumentError, r"indices\[1\] is -1, .* 64 blocks"),
        (BLOCK, range(60, 70), {}, nc.ArgumentError, r"indices\[4\] is 64"),
        (BLOCK, range(3, -2, -1), {}, nc.ArgumentError, r"indices\[4\] is -1"),
        (BLOCK, np.array([1 << 62]), {}, nc.ArgumentError, "64 blocks"),
        (BLOCK, [1 << 70], {}, nc.ArgumentError, "64 bits"),
        (BLOCK, np.zeros((2, 2), int), {}, nc.ArgumentError, "one dimension"),
        (BLOCK, np.zeros(2), {}, nc.ArgumentError, "integers"),
        (BLOCK, np.zeros(2, ">i8"), {}, nc.ArgumentError, "integers"),
        (BLOCK, np.zeros(2, bool), {}, nc.ArgumentError, "integers"),
        (BLOCK, [1.5], {}, nc.ArgumentTypeError, "integers"),
        (BLOCK, [True], {}, nc.ArgumentTypeError, "bool"),
        (BLOCK, ["1"], {}, nc.ArgumentTypeError, "integers"),
        (BLOCK, None, {}, nc.ArgumentTypeError, "NoneType"),
        (BLOCK, 5, {}, nc.ArgumentTypeError, "int"),
        (0, [0], {}, nc.ArgumentError, "block_size"),
        (-1, [0], {}, nc.ArgumentError, "block_size"),
        (1.0, [0], {}, nc.ArgumentTypeError, "block_size"),
        (1 << 20, [0], {}, nc.ArgumentError, "32768 bytes"),
        (BLOCK, [0], {"stride": 0}, nc.ArgumentError, "stride"),
        (BLOCK, [1], {"stride": 1 << 62}, nc.ArgumentError, "1 blocks"),
    ],
)
def test_refused(size, indices, options, error, words):
    with pytest.raises(error, match=words):
        nc.Blocks(cache(), size, indices, **options)


def test_descriptor_and_stream():
    descriptor = nc.Descriptor(cache())
    assert nc.Blocks(descriptor, BLOCK, [0]).descriptor is descriptor
    with pytest.raises(nc.ArgumentError, match="stream"):
        nc.Blocks(descriptor, BLOCK, [0], stream=1)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(nc.Blocks(descriptor, BLOCK, [0]))


FORMS = {
    "JSON": lambda told: nc.RdmaMetadata.model_validate_json(told.model_dump_json()),
    "dict": lambda told: nc.RdmaMetadata.model_validate(told.model_dump()),
    "binary": lambda told: nc.RdmaMetadata.from_bytes(told.to_bytes()),
    "pickle": lambda told: pickle.loads(pickle.dumps(told)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keys", [None, b"0123456789abcdef"])
@pytest.mark.parametrize("kind", ["read", "write"])
def test_moved(make_connector, form, keys, kind):
    """Between blocks in another order, over each form of the metadata, sealed and not."""
    owner, mover = make_connector(keys=keys), make_connector(keys=keys)
    theirs, mine = cache(seed=1), cache(seed=2)
    theirs_before, mine_before = theirs.copy(), mine.copy()
    there, here = [5, 6, 7, 20, 1, 2], [30, 31, 9, 8, 0, 1]

    async def main():
        offered = nc.Blocks(theirs, BLOCK, there)
        local = nc.Blocks(mine, BLOCK, np.array(here))
        if kind == "read":
            passive = await owner.create_readable(offered)
            active = await mover.begin_read(FORMS[form](passive.metadata()), local)
        else:
            passive = await owner.create_writable(offered)
            active = await mover.begin_write(local, FORMS[form](passive.metadata()))
        await active.wait_for_completion(DEADLINE)
        await passive.wait_for_completion(DEADLINE)
        if kind == "read":
            assert active.results() == [local]

    asyncio.run(main())
    if kind == "read":
        assert (picked(mine, here) == picked(theirs_before, there)).all()
        rest = sorted(set(range(64)) - set(here))
        assert (picked(mine, rest) == picked(mine_before, rest)).all()
        assert (theirs == theirs_before).all()
    else:
        assert (picked(theirs, there) == picked(mine_before, here)).all()
        rest = sorted(set(range(64)) - set(there))
        assert (picked(theirs, rest) == picked(theirs_before, rest)).all()
        assert (mine == mine_before).all()


def test_a_list_of_blocks_and_descriptors(make_connector):
    """As many caches as an engine has layers, and something beside them."""
    owner, mover = make_connector(), make_connector()
    layers = [(cache(seed=i), cache(seed=100 + i)) for i in range(4)]
    header, header_there = np.zeros(100, np.uint8), np.arange(100, dtype=np.uint8)
    there, here = range(10, 20), [3, 4, 5, 6, 7, 30, 31, 32, 33, 34]
    offered = [nc.Blocks(theirs, BLOCK, there) for theirs, _ in layers]
    offered.insert(2, nc.Descriptor(header_there))
    local = [nc.Blocks(mine, BLOCK, here) for _, mine in layers]
    local.insert(2, nc.Descriptor(header))
    with owner.create_readable_blocking(offered) as passive:
        told = nc.RdmaMetadata.from_bytes(passive.metadata().to_bytes())
        assert told == passive.metadata()
        with mover.begin_read_blocking(told, local) as active:
            active.wait_for_completion_blocking(DEADLINE)
    assert (header == header_there).all()
    for theirs, mine in layers:
        assert (picked(mine, here) == picked(theirs, there)).all()


def test_blocks_pair_with_descriptors(make_connector):
    owner, mover = make_connector(), make_connector()
    theirs = cache()
    into = [np.zeros(BLOCK, np.uint8) for _ in range(3)]
    passive = owner.create_readable_blocking(nc.Blocks(theirs, BLOCK, [9, 8, 50]))
    active = mover.begin_read_blocking(passive.metadata(), [nc.Descriptor(item) for item in into])
    active.wait_for_completion_blocking(DEADLINE)
    assert (np.concatenate(into) == picked(theirs, [9, 8, 50])).all()


def test_sizes_and_counts_have_to_fit(make_connector):
    owner, mover = make_connector(), make_connector()
    passive = owner.create_readable_blocking(nc.Blocks(cache(), BLOCK, [9, 8, 50]))
    told = nc.RdmaMetadata.from_bytes(passive.metadata().to_bytes())
    with pytest.raises(nc.ArgumentError, match="has 2 descriptors, but the peer's metadata has 3"):
        mover.begin_read_blocking(told, nc.Blocks(cache(), BLOCK, [0, 1]))
    with pytest.raises(nc.ArgumentError, match=r"\[0\] has 256 bytes, but the peer's has 512"):
        mover.begin_read_blocking(told, nc.Blocks(cache(), 256, [0, 1, 2]))
    with pytest.raises(nc.ArgumentError, match="read-only"):
        mover.begin_read_blocking(told, nc.Blocks(cache().tobytes(), BLOCK, [0, 1, 2]))


def test_the_limit_counts_blocks(make_connector):
    connector = make_connector(max_descriptors=5)
    with pytest.raises(nc.ArgumentError, match="has 6 descriptors; max_descriptors is 5"):
        connector.create_readable_blocking(nc.Blocks(cache(), BLOCK, range(6)))


def test_the_whole_is_registered_once(make_connector):
    connector = make_connector(quarantine=0)
    memory = cache()
    with connector.create_readable_blocking(
        [nc.Blocks(memory, BLOCK, [1, 5]), nc.Blocks(memory, BLOCK, [9, 5])]
    ) as passive:
        assert connector.stats()["registrations"] == {"count": 1, "bytes": memory.nbytes}
        described = passive.metadata()
        assert len(described.nixl_metadata) < 1000
    assert connector.stats()["registrations"]["count"] == 0


def test_the_binary_form_is_compact(make_connector):
    """Four bytes a block, whatever their order."""
    connector = make_connector()
    memory = np.zeros(100_000 * 16, np.uint8)
    indices = np.random.default_rng(0).permutation(100_000)
    passive = connector.create_readable_blocking(nc.Blocks(memory, 16, indices))
    binary = passive.metadata().to_bytes()
    assert len(binary) < 4 * 100_000 + 1000
    told = nc.RdmaMetadata.from_bytes(binary)
    assert told == passive.metadata()
    assert len(told.descriptors) == 100_000
    assert told.descriptors[77].ptr == memory.ctypes.data + 16 * int(indices[77])
    assert told.descriptors[-1] == passive.metadata().descriptors[99_999]
    assert [item.ptr for item in told.descriptors[5:8]] == [
        memory.ctypes.data + 16 * int(i) for i in indices[5:8]
    ]


def test_rows_are_a_sequence():
    rows = BlockDescriptors(
        [Group("cpu", 4096, 8, 16, 4, bytes(8)), Group("cpu", 9000, 4, 4, 8, bytes(8))]
    )
    assert len(rows) == 3
    assert [item.size for item in rows] == [8, 8, 4]
    assert rows[-1].ptr == 9000
    assert rows == list(rows)
    assert list(rows) == rows
    assert rows != list(rows)[:2]
    assert rows != 5
    with pytest.raises(IndexError):
        rows[3]
    with pytest.raises(IndexError):
        rows[-4]


@pytest.mark.parametrize(
    "group",
    [
        ("cpu", 0, 8, 8, 4, bytes(4)),
        ("cpu", 4096, 0, 8, 4, bytes(4)),
        ("cpu", 4096, 8, 0, 4, bytes(4)),
        ("cpu", 4096, 8, -8, 4, bytes(4)),
        ("cpu", 4096, 8, 8, 3, bytes(6)),
        ("cpu", 4096, 8, 8, 4, bytes(6)),
        ("cpu", 4096, 8, 8, 4, b""),
        ("CPU", 4096, 8, 8, 4, bytes(4)),
        ("tape:0", 4096, 8, 8, 4, bytes(4)),
        ("cpu", 4096, 8, 1 << 62, 4, b"\x04\0\0\0"),
        ("cpu", 1 << 63, 8, 1 << 62, 8, b"\xff" * 8),
        ("cpu", 1 << 64, 8, 8, 4, bytes(4)),
        ("cpu", 4096, 1 << 64, 8, 4, bytes(4)),
        ("cpu", 4096, 8, 1 << 64, 4, bytes(4)),
        ("cpu", 4096, 1 << 62, 8, 4, bytes(16)),
    ],
)
def test_groups_that_cannot_be(group):
    with pytest.raises(nc.MetadataError):
        BlockDescriptors([Group(*group)])


def test_adjacent_blocks_are_one_to_nixl():
    a = Regions([(100, 10, 0), (110, 10, 0), (120, 10, 0), (130, 10, 0), (200, 10, 0)])
    b = Regions([(500, 10, 0), (510, 10, 0), (530, 10, 0), (540, 10, 0), (550, 10, 0)])
    here, there = coalesce(a, b, [])
    assert list(here) == [(100, 20, 0), (120, 20, 0), (200, 10, 0)]
    assert list(there) == [(500, 20, 0), (530, 20, 0), (550, 10, 0)]
    here, there = coalesce(a, b, [1, 3, 5])
    assert list(here) == list(a)
    here, there = coalesce(a, b, [3])
    assert list(here) == [(100, 20, 0), (120, 10, 0), (130, 10, 0), (200, 10, 0)]
    other = Regions([(500, 10, 0), (510, 10, 1), (520, 10, 1), (530, 10, 1), (550, 10, 1)])
    here, there = coalesce(a, other, [])
    assert list(there) == [(500, 10, 0), (510, 30, 1), (550, 10, 1)]
    with pytest.raises(ValueError, match="5 rows and 1"):
        coalesce(a, Regions([(1, 1, 0)]), [])


def test_blocks_of_a_descriptor_that_is_shrunk(connector):
    """As pools do, for an item of another size."""
    descriptor = nc.Descriptor(np.zeros(4096, np.uint8))
    blocks = nc.Blocks(descriptor, 64, range(10, 20))
    descriptor._data_size = 20 * 64
    connector.create_readable_blocking(blocks).cancel()
    descriptor._data_size = 20 * 64 - 1
    with pytest.raises(nc.ArgumentError, match="shrunk"):
        connector.create_readable_blocking(blocks)
    descriptor._data_size = 4096
    connector.create_readable_blocking(blocks).cancel()

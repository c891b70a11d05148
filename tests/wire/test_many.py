"""Messages with many descriptors: read as if one by one, in JSON, as dicts and in msgpack."""

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from many import MANY, PARTS, SINGLES, metadata_of, tables

import nixl_connect as nc
from nixl_connect._native import readers
from nixl_connect._native.packing import Regions
from nixl_connect.memory.descriptor import SerializedDescriptor as Serialized
from nixl_connect.memory.tables import FEW, RowDescriptors


def read_typed(text):
    """Read metadata without the short way."""
    try:
        return msgspec.json.decode(text, type=nc.RdmaMetadata)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return f"RdmaMetadata: {error}"


def read(text):
    try:
        return nc.RdmaMetadata.model_validate_json(text)
    except nc.MetadataError as error:
        return str(error)


PLAIN = [{"device": "cuda:1", "ptr": 4096 + i, "size": i + 1} for i in range(MANY)]


FIELDS = {
    "descriptors": PLAIN,
    "nixl_metadata": "b64:AA==",
    "notification_key": "key",
    "operation_kind": 1,
}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_more_than_a_few_are_a_table(separators):
    for count, kind in ((FEW, list), (MANY, RowDescriptors)):
        text = json.dumps(FIELDS | {"descriptors": PLAIN[:count]}, separators=separators)
        for given_as in (text, text.encode(), bytearray(text.encode())):
            told = nc.RdmaMetadata.model_validate_json(given_as)
            assert type(told.descriptors) is kind
            assert told == read_typed(text)
            assert told.model_dump() == json.loads(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"key"', '"k\\u0065y"'),
        lambda text: text.replace('"key"', '"k€y"'),
        lambda text: text.replace('"key"', "5"),
        lambda text: text.replace('"operation_kind": 1', '"operation_kind": 7'),
        lambda text: text.replace('"operation_kind": 1', '"operation_kind": true'),
        lambda text: text.replace('"operation_kind": 1', '"more": 1'),
        lambda text: text.replace('"ptr": 4096', '"ptr": 0'),
        lambda text: text.replace('"size": 5', '"size": 0'),
        lambda text: text.replace('"size": 5', '"size": -5'),
        lambda text: text.replace('"device": "cuda:1", "ptr": 4099', '"ptr": 4099'),
        lambda text: text.replace("cuda:1", "CUDA:1", 1),
        lambda text: text.replace("cuda:1", "cpu", 1),
        lambda text: text.replace("cuda:1", "tpu", 1),
        lambda text: '{"descriptors": [5], ' + text[1:],
        lambda text: '{"\\u0064escriptors": [5], ' + text[1:],
        lambda text: text[:-1] + ', "descriptors": []}',
        lambda text: text[:-1] + ', "descriptors": 5}',
        lambda text: text[:-1] + ', "operation_kind": 2}',
        lambda text: text[:-1],
        lambda text: text + "}",
        lambda text: text + " ",
        lambda text: text + text,
        lambda text: f"[{text}]",
        lambda text: text.replace('"descriptors"', '"other"'),
        lambda text: "[" * 100_000,
        lambda text: '{"descriptors":' * 50_000,
        lambda text: "\ufeff" + text,
    ],
)
def test_a_message_is_read_as_if_one_by_one(change):
    text = change(json.dumps(FIELDS, ensure_ascii=False))
    assert read(text) == read(text.encode()) == read_typed(text)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_message(data):
    text = bytearray(json.dumps(FIELDS).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.sampled_from(PARTS) | st.integers(0, 255))
    assert read(bytes(text)) == read_typed(bytes(text))


def validated(fields):
    try:
        return nc.RdmaMetadata.model_validate(fields)
    except nc.MetadataError as error:
        return str(error)


def converted(fields):
    try:
        return msgspec.convert(fields, nc.RdmaMetadata)
    except (msgspec.ValidationError, UnicodeError) as error:
        return f"RdmaMetadata: {error}"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "item",
    [
        {"device": "cpu", "ptr": 7, "size": 9},
        {"device": "cuda:0", "ptr": 7, "size": 0},
        {"device": "cuda:0", "ptr": 0, "size": 9},
        {"device": "cuda:0", "ptr": -7, "size": 9},
        {"device": "cuda:0", "ptr": True, "size": 9},
        {"device": "cuda:0", "ptr": 7.0, "size": 9},
        {"device": "cuda:0", "ptr": "7", "size": 9},
        {"device": "cuda:0", "ptr": 2**64, "size": 9},
        {"device": "cuda:0", "ptr": 2**64 - 1, "size": 9},
        {"device": "cuda:0", "ptr": 7, "size": 10**400},
        {"device": "CUDA:0", "ptr": 7, "size": 9},
        {"device": "cuda:\u0661", "ptr": 7, "size": 9},
        {"device": "\ud800", "ptr": 7, "size": 9},
        {"device": None, "ptr": 7, "size": 9},
        {"device": Text("cuda:0"), "ptr": 7, "size": 9},
        {"device": "cuda:0", "ptr": 7, "size": 9, "more": 1},
        {"device": "cuda:0", "ptr": 7, "more": 1},
        {"ptr": 7, "size": 9},
        {},
        None,
        Serialized(device="cuda:1", ptr=7, size=9),
        ("cuda:1", 7, 9),
    ],
    ids=lambda item: repr(item)[:60],
)
def test_dicts_are_read_as_if_one_by_one(item):
    good = validated(FIELDS)
    assert type(good.descriptors) is RowDescriptors
    assert good == converted(FIELDS)
    for at in (0, 30, MANY):
        items = [*PLAIN[:at], item, *PLAIN[at:]]
        fields = FIELDS | {"descriptors": items}
        assert validated(fields) == converted(fields)


@pytest.mark.parametrize(
    "changes",
    [{"more": 1}, {"operation_kind": 3}, {"notification_key": 5}, {"nixl_metadata": None}],
)
def test_other_fields_of_a_dict(changes):
    assert isinstance(validated(FIELDS | changes), str)
    assert validated(FIELDS | changes) == converted(FIELDS | changes)


def test_a_surrogate():
    text = json.dumps(FIELDS).replace("key", "\ud800")
    with pytest.raises(nc.MetadataError):
        nc.RdmaMetadata.model_validate_json(text)


@given(tables())
@example(RowDescriptors("cpu", Regions([(1 << i, 1 << 62 - i, 0) for i in range(61)])))
def test_packed_as_msgspec_packs(table):
    singles = [(item.device, item.ptr, item.size) for item in table]
    assert table.packed() == msgspec.msgpack.encode(singles)


@pytest.mark.parametrize("count", [MANY, 65_535, 65_536])
@pytest.mark.parametrize("kind", ["cpu", "xpu:"])
def test_packed_and_unpacked(kind, count):
    numbers = range(count) if kind == "xpu:" else [0] * count
    table = RowDescriptors(
        kind, Regions([(1 + (i << i % 48), 1 + i, numbers[i]) for i in range(count)])
    )
    metadata = metadata_of(table)
    packed = metadata.to_bytes()
    told = nc.RdmaMetadata.from_bytes(packed)
    assert type(told.descriptors) is RowDescriptors
    assert told == metadata
    assert told.to_bytes() == packed == metadata_of(list(table)).to_bytes()


@settings(max_examples=400)
@given(tables(least=16, most=20), st.data())
def test_damaged_msgpack(table, data):
    packed = bytearray(table.packed())
    assert readers.unpacked(packed, 16)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(packed) - 1))
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            packed[at] = data.draw(st.integers(0, 255))
        elif kind == 1 and len(packed) > 40:
            del packed[at : at + data.draw(st.integers(1, 10))]
        else:
            packed[at:at] = packed[at : at + data.draw(st.integers(1, 10))]
    found = readers.unpacked(packed, 1)
    if found is not None:
        singles = [Serialized(device=d, ptr=p, size=s) for d, p, s in SINGLES.decode(packed)]
        assert RowDescriptors(found[0].decode(), found[1]) == singles


def test_every_cut_of_msgpack():
    packed = RowDescriptors("cuda:", Regions([(300, 70_000, 12)] * 16)).packed()
    for end in range(len(packed)):
        assert readers.unpacked(packed[:end], 1) is None
    assert readers.unpacked(b"\xdd\xff\xff\xff\xff" + packed[3:], 1) is None
    assert readers.unpacked(packed + b"\0", 1) is None

"""Many descriptors as rows: read and written as msgspec does it one by one."""

import copy
import json
import pickle

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nixl_connect as nc
from nixl_connect._native import readers
from nixl_connect._native.packing import Regions
from nixl_connect.memory.descriptor import SerializedDescriptor as Serialized
from nixl_connect.memory.tables import FEW, RowDescriptors

TOP = 2**64 - 1
MANY = FEW + 1
# What JSON is made of.
PARTS = b'0123456789,:"[]{} .eE+-\\'
SINGLES = msgspec.msgpack.Decoder(list[tuple[str, int, int]])


@st.composite
def tables(draw, least=1, most=6):
    kind = draw(st.sampled_from(["cpu", "cuda:", "xpu:"]))
    numbers = st.just(0) if kind == "cpu" else st.integers(0, 99_999)
    count = draw(st.integers(least, most))
    found = []
    for _ in range(count):
        ptr = draw(st.integers(1, TOP - 1) | st.integers(1, 300))
        size = draw(st.integers(1, min(TOP - ptr, TOP // count)))
        found.append((ptr, size, draw(numbers)))
    return RowDescriptors(kind, Regions(found))


def metadata_of(descriptors):
    return nc.RdmaMetadata(
        descriptors=descriptors, nixl_metadata="b64:AA==", notification_key="k", operation_kind=1
    )


def typed(text):
    """Read JSON as msgspec does, which is given the types; None if it is refused."""
    try:
        return msgspec.json.decode(text, type=list[Serialized])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def agree(text):
    """Check that what is read as rows is what msgspec reads; return whether it is."""
    found = readers.read_json(text, 1)
    if found is None:
        return False
    device, regions = found
    assert RowDescriptors(device.decode(), regions) == typed(text)
    return True


def spellings(plain):
    return [
        json.dumps(plain).encode(),
        json.dumps(plain, separators=(",", ":")).encode(),
        json.dumps(plain, indent=1).encode(),
        b"\n\t\r [ " + json.dumps(plain)[1:-1].encode() + b" ]\n",
    ]


# --- JSON -----------------------------------------------------------------------------------------


@given(tables())
def test_written_and_read(table):
    text = table.json()
    assert text == msgspec.json.encode(list(table))
    for each in (text, *spellings(table.plain())):
        assert agree(each)


@settings(max_examples=400)
@given(tables(most=3), st.data())
def test_damaged(table, data):
    """Whatever is read, msgspec reads too, and as the same."""
    text = bytearray(data.draw(st.sampled_from(spellings(table.plain()))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        kind = data.draw(st.integers(0, 3))
        if kind == 0:
            text[at] = data.draw(
                st.sampled_from(b'0123456789,:"[]{} .eE+-\\') | st.integers(0, 255)
            )
        elif kind == 1:
            del text[at : at + data.draw(st.integers(1, 40))]
        elif kind == 2:
            text[at:at] = text[at : at + data.draw(st.integers(1, 40))]
        else:
            text[at:at] = data.draw(st.sampled_from([b"0", b"-", b".0", b"e1", b" ", b"99999999"]))
        if not text:
            return
    agree(bytes(text))


GOOD = '{"device":"cpu","ptr":7,"size":9}'
CUDA = '{"device":"cuda:1","ptr":7,"size":9}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "[ ]",
        GOOD,
        f"[{GOOD}",
        f"{GOOD}]",
        f"[{GOOD},]",
        f"[,{GOOD}]",
        f"[{GOOD} {GOOD}]",
        f"[{GOOD}]]",
        f"[{GOOD}]\0",
        f"[{GOOD}][{GOOD}]",
        f"[[{GOOD}]]",
        f"\ufeff[{GOOD}]",
        f"[{GOOD},{CUDA}]",
        f"[{GOOD},null]",
        *(
            f"[{item}]"
            for item in (
                GOOD.replace("7", "07"),
                GOOD.replace("7", "+7"),
                GOOD.replace("7", "-7"),
                GOOD.replace("7", "7.0"),
                GOOD.replace("7", "7e0"),
                GOOD.replace("7", "7E0"),
                GOOD.replace("7", "0x7"),
                GOOD.replace("7", "0"),
                GOOD.replace("7", "00"),
                GOOD.replace("7", ""),
                GOOD.replace("7", " "),
                GOOD.replace("7", '"7"'),
                GOOD.replace("7", "true"),
                GOOD.replace("7", "null"),
                GOOD.replace("7", "[7]"),
                GOOD.replace("7", str(2**64)),
                GOOD.replace("7", str(2**64 - 1)),
                GOOD.replace("7", "18446744073709551620"),
                GOOD.replace("7", "28446744073709551615"),
                GOOD.replace("7", "9" * 400),
                GOOD.replace("7", "7 7"),
                GOOD.replace("9", "0"),
                GOOD.replace("9", str(2**64 - 7)),
                GOOD.replace("cpu", "CPU"),
                GOOD.replace("cpu", " cpu"),
                GOOD.replace("cpu", "cpu "),
                GOOD.replace("cpu", "cpu:0"),
                GOOD.replace("cpu", ""),
                GOOD.replace("cpu", "c\\u0070u"),
                GOOD.replace("cpu", "tpu:0"),
                CUDA.replace(":1", ""),
                CUDA.replace(":1", ":"),
                CUDA.replace(":1", ":01"),
                CUDA.replace(":1", ":-1"),
                CUDA.replace(":1", ":100000"),
                CUDA.replace(":1", ":\u0661"),
                GOOD.replace("ptr", "p\\u0074r"),
                GOOD.replace("ptr", "Ptr"),
                GOOD.replace('"ptr"', "ptr"),
                GOOD.replace('"', "'"),
                GOOD.replace("{", '{"other":1,'),
                GOOD.replace("}", ',"other":1}'),
                GOOD.replace("}", ',"size":9}'),
                GOOD.replace("}", ",}"),
                GOOD.replace("}", ""),
                GOOD.replace('"size":9', '"ptr":9'),
                '{"ptr":7,"device":"cpu","size":9}',
                '{"device":"cpu","size":9,"ptr":7}',
                '{"ptr":7,"size":9}',
                '["cpu",7,9]',
                "{}",
                GOOD.replace(",", ",\x0b"),
                GOOD.replace(",", ",\xa0"),
                GOOD.replace(",", ",/**/"),
                GOOD.replace(":7", "=7"),
            )
        ),
    ],
)
def test_other_texts_are_left_to_msgspec(text):
    assert readers.read_json(f"[{GOOD},{GOOD}]".encode(), 2)[1][1] == (7, 9, 0)
    assert readers.read_json(f"[{CUDA}]".encode(), 1)[0] == b"cuda:"
    assert readers.read_json(text.encode(), 1) is None


def test_of_64_bits():
    text = f'[{{"device":"cpu","ptr":{TOP - 1},"size":1}}]'.encode()
    assert readers.read_json(text, 1)[1][0] == (TOP - 1, 1, 0)
    half = f'{{"device":"cpu","ptr":1,"size":{2**63}}}'
    assert readers.read_json(f"[{half}]".encode(), 1)
    assert readers.read_json(f"[{half},{half}]".encode(), 1) is None  # no table holds so much


def test_every_cut():
    text = f"[{GOOD},{GOOD}]".encode()
    for end in range(len(text)):
        assert readers.read_json(text[:end], 1) is None


@given(st.binary(max_size=200))
def test_noise(noise):
    assert readers.read_json(noise, 1) is None
    assert readers.unpacked(noise, 1) is None


# --- a message ------------------------------------------------------------------------------------


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


# --- msgpack --------------------------------------------------------------------------------------


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


# --- a table --------------------------------------------------------------------------------------


def test_it_is_a_sequence():
    table = RowDescriptors("cuda:", Regions([(10 * i + 10, i + 1, i % 3) for i in range(5)]))
    assert len(table) == 5
    assert table[0] == Serialized(device="cuda:0", ptr=10, size=1)
    assert table[-1] == Serialized(device="cuda:1", ptr=50, size=5)
    assert [item.device for item in table] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert table[1:3] == [table[1], table[2]]
    assert table[4] in table
    assert table == list(table)
    assert list(table) == table
    assert table != list(table)[:-1]
    assert table != [*table[:4], table[0]]
    assert table != RowDescriptors("xpu:", table.regions)
    assert table != 5
    for i in (5, -6):
        with pytest.raises(IndexError):
            table[i]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies(copied):
    metadata = metadata_of(RowDescriptors("cuda:", Regions([(10, 1, i) for i in range(100)])))
    assert copied(metadata) == metadata
    assert type(copied(metadata).descriptors) is RowDescriptors


def test_of_an_operation(make_connector):
    connector = make_connector()
    memory = np.zeros((MANY, 8), np.uint8)
    for count, kind in ((FEW, list), (MANY, RowDescriptors)):
        rows = list(memory[:count])
        with connector.create_readable_blocking([nc.Descriptor(row) for row in rows]) as offered:
            told = offered.metadata()
            assert type(told.descriptors) is kind
            assert told.descriptors == [nc.Descriptor(row).metadata for row in rows]
            again = nc.RdmaMetadata.model_validate_json(told.model_dump_json())
            assert again == told
            assert [item.ptr for item in told.to_descriptors()] == [row.ctypes.data for row in rows]


@pytest.mark.parametrize("form", ["json", "spaced", "other order", "binary", "dict", "pickle"])
def test_to_a_peer(make_connector, form):
    """Every form of many descriptors moves the bytes that it names, sealed too."""
    key = b"sixteen bytes or more"
    owner, mover = make_connector(keys=key), make_connector(keys=key)
    source = np.random.default_rng(7).integers(0, 256, (200, 16), np.uint8)
    target = np.zeros_like(source)
    order = np.random.default_rng(8).permutation(200)
    with owner.create_readable_blocking([nc.Descriptor(source[i]) for i in order]) as offered:
        told = offered.metadata()
        fields = told.model_dump()
        told = {
            "json": lambda: nc.RdmaMetadata.model_validate_json(told.model_dump_json()),
            "spaced": lambda: nc.RdmaMetadata.model_validate_json(json.dumps(fields)),
            "other order": lambda: nc.RdmaMetadata.model_validate_json(
                json.dumps(fields, sort_keys=True).replace('"ptr"', '"p\\u0074r"')
            ),
            "binary": lambda: nc.RdmaMetadata.from_bytes(told.to_bytes()),
            "dict": lambda: nc.RdmaMetadata.model_validate(fields),
            "pickle": lambda: pickle.loads(pickle.dumps(told)),
        }[form]()
        with mover.begin_read_blocking(told, [nc.Descriptor(target[i]) for i in order]) as read:
            read.wait_for_completion_blocking(60)
        offered.wait_for_completion_blocking(60)
    assert np.array_equal(source, target)


def test_sizes_that_no_table_holds(make_connector):
    """All regions together have more than 64 bits of bytes."""
    connector = make_connector()
    huge = [Serialized(device="cpu", ptr=1, size=2**63)] * 2
    locals_ = [nc.Descriptor(bytearray(8)), nc.Descriptor(bytearray(8))]
    with pytest.raises(nc.NixlConnectError):
        connector.begin_read_blocking(metadata_of(huge), locals_)

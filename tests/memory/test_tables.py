"""Many descriptors as rows: read and written as msgspec does it one by one."""

import copy
import json
import pickle

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from many import MANY, TOP, metadata_of, tables, typed

import nixl_connect as nc
from nixl_connect._native import readers
from nixl_connect._native.packing import Regions
from nixl_connect.memory.descriptor import SerializedDescriptor as Serialized
from nixl_connect.memory.tables import FEW, RowDescriptors


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

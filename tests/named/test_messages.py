"""Messages of named arrays, as they may come from anybody."""

import json

import msgspec
import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect import arrays as named
from nixl_connect.arrays.dtypes import decoded, encoded
from nixl_connect.arrays.manifest import Message
from nixl_connect.wire.metadata import RdmaMetadata


@pytest.fixture
def fields(make_connector):
    """Those of a message of two arrays, in regions of 24 and 6 bytes."""
    arrays = {"a": {"b": np.arange(6.0)[:3]}, "c": np.ones((2, 3), np.int8)}
    with named.offer_blocking(make_connector(), arrays) as offer:
        yield json.loads(offer.message())


def refused(connector, fields, text):
    with pytest.raises(nc.MetadataError, match=text):
        named.fetch_blocking(connector, json.dumps(fields))


@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (0, [], "1 to 16 parts"),
        (0, ["x"] * 17, "1 to 16 parts"),
        (0, ["x" * 1025], "1024 characters"),
        (0, ["c"], "two things"),
        (0, ["c", "d"], "two things"),
        (0, "a", "not a message"),
        (1, "object", "no type"),
        (1, "O", "no type"),
        (1, "i4,i4", "no type"),
        (1, "(3,)f4", "no type"),
        (1, ">f16", "no type"),
        (1, "|V0", "no type"),
        (1, "<M8[fortnight]", "no type"),
        (1, [], "no type"),
        (1, [["x", "<i4"], ["x", "<i4"]], "name twice"),
        (1, [["x", "<i8", [0, 1 << 29, 1 << 29, 1 << 29]]], "too large"),
        (1, [["x", "<i8", [-1]]], "no shape"),
        (1, [["x", "<i8", 3]], "no shape"),
        (1, [["x"]], "no field"),
        (1, [[1, "<i8"]], "no field"),
        (1, [["", "|V3"]], "structured"),
        (1, [[f"x{i}", "|b1"] for i in range(5000)], "no type"),
        (1, 5, "not a message"),
        (2, [4], "not within"),
        (2, [-1], "impossible"),
        (2, [1 << 61, 0, 1 << 61], "impossible"),
        (2, [1 << 70], "not a message|impossible"),
        (2, [1] * 33, "dimensions"),
        (2, [1.0], "not a message"),
        (3, "A", "C or F"),
        (4, 2, "region 2 of 2"),
        (4, -1, "region -1 of 2"),
        (4, 1, "not within"),
        (5, 1, "not within"),
        (5, -1, "not within"),
        (5, 1 << 63, "not a message|not within"),
    ],
    ids=range(36),
)
def test_what_no_offer_says(connector, fields, at, value, text):
    fields["arrays"][0][at] = value
    refused(connector, fields, text)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("nixl_connect_arrays", 2, "version 2"),
        ("nixl_connect_arrays", "1", "not a message"),
        ("operation", {}, "region 0 of 0"),
        ("operation", [], "RdmaMetadata"),
        ("arrays", None, "not a message"),
        ("sequence", True, "named by their numbers"),
        ("other", 1, "not a message"),
    ],
    ids=range(7),
)
def test_other_fields(connector, fields, name, value, text):
    refused(connector, fields | {name: value}, text)


@pytest.mark.parametrize("message", ["", "{}", "[]", b"", b"\x95", b"\xff", b"  {", "x" * 100])
def test_no_messages(connector, message):
    with pytest.raises(nc.MetadataError):
        named.fetch_blocking(connector, message)


@pytest.mark.parametrize("message", [None, 5, {}, np.zeros(3)])
def test_neither_text_nor_bytes(connector, message):
    with pytest.raises(nc.ArgumentTypeError):
        named.fetch_blocking(connector, message)


def test_types_that_are_nested_without_end():
    for depth in (9, 100, 900, 980, 990, 1000):
        kind = "<i4"
        for _ in range(depth):
            kind = [["x", kind]]
        with pytest.raises(nc.ArgumentError, match="no type"):
            decoded(kind)


def test_spaces_before_json(connector, make_connector):
    with named.offer_blocking(make_connector(), {"x": np.ones(3)}) as offer:
        message = b" \n" + offer.message().encode()
        assert named.fetch_blocking(connector, message)["x"].sum() == 3


def test_many_arrays_in_as_many_groups_of_blocks():
    """What a message may say takes time that its length bounds: this took minutes."""
    count = 60_000
    group = ("cpu", 4096, 8, 8, 4, bytes(4))
    operation = RdmaMetadata.from_bytes(
        msgspec.msgpack.encode((2, 1, "key", b"x", [group] * count))
    )
    rows = [[[str(i)], "int8", [8], "C", i, 0] for i in range(count)]
    packed = msgspec.msgpack.encode((1, operation.to_bytes(), rows, True, ""))
    Message.parse(packed).check(None, count)


@pytest.mark.parametrize(
    "kind",
    [
        *("bool", "int8", "uint64", "float16", "complex128", ">i2", "<M8[us]", "m8[25s]", "S3"),
        *("U7", "V5", "M8", [("a", "<i4"), ("b", ">f8", (2, 3))], np.dtype("i4,i8", align=True)),
        {"names": ["a"], "formats": ["i4"], "offsets": [4], "itemsize": 16},
        [("a", [("b", "S3"), ("c", "?", (2,))])],
    ],
    ids=str,
)  # fmt: skip
def test_types_come_back(kind):
    dtype = np.dtype(kind)
    told = json.loads(json.dumps(encoded(dtype)))
    assert decoded(told) == dtype
    assert decoded(told).itemsize == dtype.itemsize


@pytest.mark.parametrize(
    "kind",
    [
        {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]},
        {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]},
        [(("title", "a"), "i4")],
        "O",
        "g",
        "S0",
        [],
    ],
    ids=str,
)
def test_types_that_are_refused(kind):
    with pytest.raises(nc.ArgumentError):
        encoded(np.dtype(kind))

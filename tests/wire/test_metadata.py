"""The wire: JSON and binary, exact keys, strict reading, and what pydantic's users expect."""

import json
import os
import pickle
import zlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import BAD, FIELDS, METADATA, TOP, changed, shown

from nixl_connect import Descriptor, MetadataError, NixlConnectError, RdmaMetadata
from nixl_connect import SerializedDescriptor as Serialized
from nixl_connect._native.text import text_of
from nixl_connect.wire.codec import decode_nixl_metadata, stream_of

LIMIT = 4096


# --- JSON -----------------------------------------------------------------------------------------


@given(METADATA)
def test_json_round_trip(metadata):
    text = metadata.model_dump_json()
    assert RdmaMetadata.model_validate_json(text) == metadata
    assert RdmaMetadata.model_validate_json(text.encode()) == metadata
    assert json.loads(text) == metadata.model_dump()


@given(METADATA)
def test_dict_round_trip(metadata):
    fields = metadata.model_dump()
    assert RdmaMetadata.model_validate(fields) == metadata
    assert RdmaMetadata.model_validate(json.loads(json.dumps(fields))) == metadata


def test_wire_keys():
    metadata = RdmaMetadata(
        descriptors=[Serialized(device="cpu", ptr=1, size=2)],
        nixl_metadata="00",
        notification_key="k",
        operation_kind=2,
    )
    expected = {
        "descriptors": [{"device": "cpu", "ptr": 1, "size": 2}],
        "nixl_metadata": "00",
        "notification_key": "k",
        "operation_kind": 2,
    }
    assert metadata.model_dump() == expected
    assert json.loads(metadata.model_dump_json()) == expected
    assert type(metadata.model_dump()["descriptors"][0]) is dict


def test_json_as_an_older_peer_writes_it():
    text = (
        '{"descriptors": [{"device": "cuda:0", "ptr": 139637976301568, "size": 1024}], '
        '"nixl_metadata": "789c030000000001", "notification_key": "b1d2", "operation_kind": 1}'
    )
    metadata = RdmaMetadata.model_validate_json(text)
    assert metadata.descriptors == [Serialized(device="cuda:0", ptr=139637976301568, size=1024)]
    assert (metadata.notification_key, metadata.operation_kind) == ("b1d2", 1)
    assert decode_nixl_metadata(metadata.nixl_metadata, LIMIT) == b""


def test_spelling_of_a_device_is_normalised():
    assert Serialized(device=" CUDA:1 ", ptr=1, size=1).device == "cuda:1"
    assert Serialized(device="CPU", ptr=1, size=1) == Serialized(device="cpu", ptr=1, size=1)


@pytest.mark.parametrize("fields", BAD, ids=shown)
def test_bad_fields(fields):
    assert RdmaMetadata.model_validate(FIELDS)
    with pytest.raises(MetadataError):
        RdmaMetadata.model_validate(fields)
    with pytest.raises(MetadataError):
        RdmaMetadata.model_validate_json(json.dumps(fields))


@pytest.mark.parametrize("fields", [item for item in BAD if set(item) == set(FIELDS)], ids=shown)
def test_bad_fields_by_hand(fields):
    """Making an instance checks as much as reading one does."""
    assert RdmaMetadata(**FIELDS) == RdmaMetadata.model_validate(FIELDS)
    with pytest.raises(MetadataError):
        RdmaMetadata(**fields)


def test_made_by_hand():
    metadata = RdmaMetadata(
        descriptors=[
            Serialized(device="cpu", ptr=1, size=2),
            {"device": "cpu", "ptr": 3, "size": 4},
        ],
        nixl_metadata="00",
        notification_key="a key of the caller's own, \u20ac",
        operation_kind=1,
    )
    assert metadata.descriptors[1] == Serialized(device="cpu", ptr=3, size=4)
    assert RdmaMetadata.model_validate_json(metadata.model_dump_json()) == metadata


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "[]",
        "5",
        '"text"',
        "{",
        json.dumps(FIELDS)[:-1],
        json.dumps(FIELDS) + "}",
        json.dumps(FIELDS) + json.dumps(FIELDS),
        "{'descriptors': []}",
        '{"notification_key": "\\ud800"}',
        "[" * 100_000,
        '{"descriptors":' * 50_000,
        b'{"notification_key": "\xff"}',
        b"\xff\xfe",
        b"\0" * 100,
    ],
    ids=lambda item: repr(item)[:30],
)
def test_not_json(text):
    with pytest.raises(MetadataError):
        RdmaMetadata.model_validate_json(text)


@pytest.mark.parametrize("given_as", [None, 5, [], "{}", b"{}", dict], ids=repr)
def test_validate_what_is_no_mapping(given_as):
    with pytest.raises(NixlConnectError):
        RdmaMetadata.model_validate(given_as)


@pytest.mark.parametrize("given_as", [None, 5, {}, str], ids=repr)
def test_json_of_no_text(given_as):
    with pytest.raises(TypeError) as caught:
        RdmaMetadata.model_validate_json(given_as)
    assert isinstance(caught.value, NixlConnectError)


@settings(max_examples=400)
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_noise_is_no_json(noise):
    with pytest.raises(MetadataError):
        RdmaMetadata.model_validate_json(noise)


@settings(max_examples=400)
@given(METADATA, st.data())
def test_damaged_json(metadata, data):
    """Damage is refused, or gives an instance that is valid."""
    blob = bytearray(metadata.model_dump_json().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] = data.draw(st.integers(0, 255))
    try:
        read = RdmaMetadata.model_validate_json(bytes(blob))
    except MetadataError:
        return
    assert RdmaMetadata.model_validate(read.model_dump()) == read


# --- instances ------------------------------------------------------------------------------------


def test_frozen():
    metadata = RdmaMetadata(**FIELDS)
    for name in (*FIELDS, "other"):
        with pytest.raises(AttributeError):
            setattr(metadata, name, FIELDS.get(name))
        with pytest.raises(AttributeError):
            delattr(metadata, name)
    with pytest.raises(AttributeError):
        metadata.descriptors[0].ptr = 5


@pytest.mark.parametrize("name", FIELDS)
def test_equality_takes_every_field(name):
    other = {
        "descriptors": [],
        "nixl_metadata": "00",
        "notification_key": "other",
        "operation_kind": 2,
    }
    assert RdmaMetadata(**FIELDS) == RdmaMetadata(**FIELDS)
    assert RdmaMetadata(**FIELDS) != RdmaMetadata(**changed(**{name: other[name]}))
    assert RdmaMetadata(**FIELDS) != FIELDS


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@given(METADATA)
def test_pickle(protocol, metadata):
    copy = pickle.loads(pickle.dumps(metadata, protocol))
    assert type(copy) is RdmaMetadata
    assert copy == metadata


def test_validate_gives_an_instance_back():
    metadata = RdmaMetadata(**FIELDS)
    assert RdmaMetadata.model_validate(metadata) is metadata


def test_to_descriptors():
    one = RdmaMetadata(**FIELDS).to_descriptors()
    assert isinstance(one, Descriptor)
    assert (one.ptr, one.size, str(one.device)) == (4096, 16, "cuda:1")
    assert one.metadata == Serialized(device="cuda:1", ptr=4096, size=16)
    region = {"device": "cpu", "ptr": 8192, "size": 1}
    many = RdmaMetadata(**changed(descriptors=[region, *FIELDS["descriptors"]])).to_descriptors()
    assert [(item.ptr, item.size, str(item.device)) for item in many] == [
        (8192, 1, "cpu"),
        (4096, 16, "cuda:1"),
    ]
    with pytest.raises(MetadataError):
        RdmaMetadata(**changed(descriptors=[])).to_descriptors()


def test_to_descriptor_of_a_region_of_no_bytes():
    with pytest.raises(ValueError, match="size") as caught:
        Serialized(device="cpu", ptr=1, size=0).to_descriptor()
    assert isinstance(caught.value, NixlConnectError)


# --- the binary form ------------------------------------------------------------------------------


@given(METADATA)
def test_binary_round_trip(metadata):
    packed = metadata.to_bytes()
    assert type(packed) is bytes
    copy = RdmaMetadata.from_bytes(packed)
    # The text of NIXL's metadata may have been hexadecimal; what it says is the same.
    assert stream_of(copy.nixl_metadata) == stream_of(metadata.nixl_metadata)
    assert copy.model_dump() | {"nixl_metadata": ""} == metadata.model_dump() | {
        "nixl_metadata": ""
    }
    assert copy.to_bytes() == packed
    for view in (bytearray(packed), memoryview(packed)):
        assert RdmaMetadata.from_bytes(view) == copy


def test_binary_is_smaller():
    stream = zlib.compress(os.urandom(300))
    metadata = RdmaMetadata(**changed(nixl_metadata=text_of(stream)))
    assert len(metadata.to_bytes()) < len(metadata.model_dump_json()) - len(stream) // 4


GOOD_PACK = [1, 1, "key", b"stream", [["cpu", 4096, 16]]]


@pytest.mark.parametrize(
    "packed",
    [
        None,
        [],
        GOOD_PACK[:-1],
        [*GOOD_PACK, 1],
        [2, *GOOD_PACK[1:]],
        [0, *GOOD_PACK[1:]],
        ["1", *GOOD_PACK[1:]],
        [1, 3, *GOOD_PACK[2:]],
        [1, -1, *GOOD_PACK[2:]],
        [1, True, *GOOD_PACK[2:]],
        [1, 1, b"key", *GOOD_PACK[3:]],
        [1, 1, "key", "stream", GOOD_PACK[4]],
        [1, 1, "key", b"stream", [["cpu", 0, 16]]],
        [1, 1, "key", b"stream", [["cpu", 1, -1]]],
        [1, 1, "key", b"stream", [["cpu", TOP, 1]]],
        [1, 1, "key", b"stream", [["cpu", 4096, 16, 1]]],
        [1, 1, "key", b"stream", [["cpu", 4096]]],
        [1, 1, "key", b"stream", [["tpu", 4096, 16]]],
        [1, 1, "key", b"stream", [["cpu", 4096.5, 16]]],
        [1, 1, "key", b"stream", None],
        {"version": 1},
        FIELDS,
    ],
    ids=lambda item: repr(item)[:50],
)
def test_malformed_binary(packed):
    assert RdmaMetadata.from_bytes(msgspec.msgpack.encode(GOOD_PACK)).notification_key == "key"
    with pytest.raises(MetadataError):
        RdmaMetadata.from_bytes(msgspec.msgpack.encode(packed))


@given(METADATA, st.data())
def test_cut_binary(metadata, data):
    packed = metadata.to_bytes()
    cut = data.draw(st.integers(0, len(packed) - 1))
    for damaged in (packed[:cut], packed + b"\0"):
        with pytest.raises(MetadataError):
            RdmaMetadata.from_bytes(damaged)


@settings(max_examples=400)
@given(METADATA, st.data())
def test_damaged_binary(metadata, data):
    packed = bytearray(metadata.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = RdmaMetadata.from_bytes(bytes(packed))
    except MetadataError:
        return
    assert RdmaMetadata.model_validate(read.model_dump()) == read


@pytest.mark.parametrize("given_as", [None, 5, "text", []], ids=repr)
def test_binary_of_no_bytes(given_as):
    with pytest.raises(TypeError) as caught:
        RdmaMetadata.from_bytes(given_as)
    assert isinstance(caught.value, NixlConnectError)


def test_binary_of_text_that_is_no_stream():
    for text in ("b64:!", "no hex", ""):
        metadata = RdmaMetadata(**changed(nixl_metadata=text))
        try:
            copy = RdmaMetadata.from_bytes(metadata.to_bytes())
        except MetadataError:
            continue
        assert text == ""
        assert stream_of(copy.nixl_metadata) == b""

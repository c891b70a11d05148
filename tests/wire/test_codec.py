"""NIXL's metadata on the wire: both texts, limits, and damage."""

import base64
import os
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixl_connect import MetadataError
from nixl_connect._native.text import blob_of, deflate, text_of
from nixl_connect.wire.codec import decode_nixl_metadata, inflate, stream_of

LIMIT = 4096


@given(st.binary(max_size=LIMIT))
def test_both_texts(blob):
    stream = zlib.compress(blob)
    in_base64 = "b64:" + base64.b64encode(stream).decode()
    assert text_of(stream) == in_base64
    for text in (in_base64, stream.hex(), stream.hex().upper()):
        assert decode_nixl_metadata(text, LIMIT) == blob


@pytest.mark.parametrize("size", [1, 100, LIMIT - 11, LIMIT, LIMIT + 1, 2 * LIMIT, 100 * LIMIT])
@pytest.mark.parametrize("content", ["zeros", "noise"])
def test_limit_of_bytes(size, content):
    blob = bytes(size) if content == "zeros" else os.urandom(size)
    stream = zlib.compress(blob)
    for text in (text_of(stream), stream.hex()):
        if max(size, len(stream)) <= LIMIT:
            assert decode_nixl_metadata(text, LIMIT) == blob
        elif size > LIMIT:
            with pytest.raises(MetadataError, match="over"):
                decode_nixl_metadata(text, LIMIT)


@pytest.mark.parametrize("size", [LIMIT + 100, 3 * LIMIT])
def test_limit_of_the_compressed_form(size):
    """A stream may be long and say nothing: here by empty blocks of deflate."""
    blocks = b"\x00\x00\x00\xff\xff" * (size // 5) + b"\x01\x01\x00\xfe\xffx"
    stream = b"\x78\x9c" + blocks + zlib.adler32(b"x").to_bytes(4, "big")
    assert zlib.decompress(stream) == b"x"
    assert decode_nixl_metadata(text_of(stream), size + 100) == b"x"
    for text in (text_of(stream), stream.hex()):
        with pytest.raises(MetadataError, match="over"):
            decode_nixl_metadata(text, LIMIT)


def test_bomb_is_not_inflated():
    text = text_of(zlib.compress(bytes(64 * 1024 * 1024), 9))
    tracemalloc.start()
    try:
        with pytest.raises(MetadataError, match="over"):
            decode_nixl_metadata(text, 65_536)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 1024 * 1024


STREAM = zlib.compress(b"nixlSerDes|" * 20)


def test_cut_stream():
    for size in range(len(STREAM)):
        with pytest.raises(MetadataError):
            inflate(STREAM[:size], LIMIT)


@pytest.mark.parametrize("more", [b"\0", b"more", STREAM])
def test_bytes_after_the_stream(more):
    with pytest.raises(MetadataError, match="after"):
        inflate(STREAM + more, LIMIT)


def test_damaged_stream():
    """The checksum holds, or nothing comes out."""
    for bit in range(8 * len(STREAM)):
        damaged = bytearray(STREAM)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert inflate(bytes(damaged), LIMIT) == b"nixlSerDes|" * 20
        except MetadataError:
            continue


def compressed(data, wbits):
    """Compress in another frame than zlib's; `zlib.compress` takes one from Python 3.11 on."""
    deflater = zlib.compressobj(wbits=wbits)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b64:",
        "b64:!!!!",
        "b64:eJwDAAAAAAE",
        "b64:eJwDAAAAAAE=\n",
        "b64: eJwDAAAAAAE=",
        "b64:\u20ac",
        "B64:eJwDAAAAAAE=",
        "789c03000000000",
        "789c03000000000x",
        "0x789c030000000001",
        "text",
        "\u20ac",
        "b64:" + base64.b64encode(b"no zlib stream").decode(),
        b"no zlib stream".hex(),
        compressed(b"x", -15).hex(),
        compressed(b"x", 31).hex(),
    ],
    ids=repr,
)
def test_bad_texts(text):
    with pytest.raises(MetadataError):
        decode_nixl_metadata(text, LIMIT)


@pytest.mark.parametrize("size", [*range(8), 100, 2047, 2048])
def test_what_is_only_wrapped_is_read_back(size):
    blob = random.Random(size).randbytes(size)
    text = text_of(deflate(blob))
    assert text == "b64:" + base64.b64encode(deflate(blob)).decode()
    assert blob_of(text, 4096) == blob
    assert blob_of(text, size) == blob
    assert zlib.decompress(deflate(blob)) == blob
    if size:
        assert blob_of(text, size - 1) is None  # over the limit


def test_other_forms_are_for_who_reads_every_form():
    blob = bytes(2049)
    others = (
        text_of(deflate(blob)),  # deflated
        text_of(zlib.compress(b"short")),
        deflate(b"short").hex(),
        "",
        "b64:",
        "b64:===",
        "b64:ÿÿÿÿ",
        "é" * 8,
    )
    for text in others:
        assert blob_of(text, 4096) is None


def test_the_short_way_reads_nothing_that_the_long_way_refuses():
    """Each text with one character changed, left out or added, or cut short."""
    dice = random.Random(7)
    characters = "ABCXYZabcxyz0189+/=-_ \n\0é:"
    for _ in range(3000):
        blob = dice.randbytes(dice.randrange(40))
        text = text_of(deflate(blob))
        at = dice.randrange(len(text))
        text = dice.choice(
            (
                text[:at] + dice.choice(characters) + text[at + 1 :],
                text[:at] + text[at + 1 :],
                text[:at] + dice.choice(characters) + text[at:],
                text[:at],
            )
        )
        found = blob_of(text, 4096)
        if found is not None:
            assert inflate(stream_of(text), 4096) == found

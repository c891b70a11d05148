"""What reads bytes of strangers, each as a function of bytes, for fuzzers and for their corpus.

A target returns whether the bytes were taken. Whatever is wrong with them must end in an error of
the package, which counts as not taken; any other exception is a bug.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

import nixl_connect as nc
from nixl_connect._native import envelope, readers
from nixl_connect.arrays.dtypes import decoded, encoded
from nixl_connect.arrays.manifest import Message
from nixl_connect.memory.tables import RowDescriptors
from nixl_connect.wire.auth import Seal
from nixl_connect.wire.codec import decode_nixl_metadata, parse_nixl_metadata, read_nixl_metadata

LIMIT = 1 << 16
KEY = b"sixteen bytes or more"
_SINGLES = msgspec.msgpack.Decoder(list[tuple[str, int, int]])
_TYPED = msgspec.json.Decoder(list[nc.SerializedDescriptor])


def _json(data: bytes) -> None:
    """Metadata as JSON, as far as its fields."""
    metadata = nc.RdmaMetadata.model_validate_json(data)
    again = nc.RdmaMetadata.model_validate_json(metadata.model_dump_json())
    assert again == metadata


def _packed(data: bytes) -> None:
    """Metadata in its short form."""
    metadata = nc.RdmaMetadata.from_bytes(data)
    assert nc.RdmaMetadata.from_bytes(metadata.to_bytes()) == metadata


def _wire(data: bytes) -> None:
    """NIXL's metadata in its wire form: base64 or hexadecimal, and compressed."""
    blob = decode_nixl_metadata(data.decode("latin-1"), LIMIT)
    assert len(blob) <= LIMIT


def _envelope(data: bytes) -> None:
    """NIXL's metadata itself."""
    described = parse_nixl_metadata(data)
    if not described.connections:
        assert data[described.sections_at :] == envelope.sections_of(data)


def _rows(data: bytes) -> None:
    """Many descriptors, as JSON or msgpack: msgspec takes what is taken as rows, as the same."""
    singles: Sequence[object]
    if data[:1] in b"\xdc\xdd":
        found = readers.unpacked(data, 1)
        singles = _SINGLES.decode(data) if found else ()
        singles = [nc.SerializedDescriptor(device=d, ptr=p, size=s) for d, p, s in singles]
    else:
        found = readers.read_json(data, 1)
        singles = _TYPED.decode(data) if found else ()
    if found is None:
        raise nc.MetadataError("not in the canonical form")
    assert RowDescriptors(found[0].decode(), found[1]) == singles


def _whole(data: bytes) -> None:
    """Metadata as JSON, up to where NIXL would be given it."""
    metadata = nc.RdmaMetadata.model_validate_json(data)
    read_nixl_metadata(metadata.nixl_metadata, LIMIT)
    for item in metadata.descriptors:
        nc.Device(item.device)


def _sealed(data: bytes) -> None:
    """Sealed metadata as JSON."""
    Seal([KEY], 1e9).check(nc.RdmaMetadata.model_validate_json(data))


def _arrays(data: bytes) -> None:
    """A message of named arrays, as far as memory for them."""
    message = Message.parse(data)
    message.check(None, 64)
    if sum(entry.nbytes for entry in message.entries) < LIMIT:
        for entry in message.entries:
            kind = decoded(entry.type)
            assert decoded(encoded(kind)) == kind
            array = np.empty(tuple(entry.shape), kind)
            assert array.nbytes == entry.nbytes
    again = Message.parse(message.to_json())
    assert again.to_bytes() == message.to_bytes()
    with contextlib.suppress(nc.AuthenticationError):
        message.check(Seal([KEY], 1e9), 64)


def _device(data: bytes) -> None:
    """The name of a device."""
    device = nc.Device(data.decode("utf-8", "replace"))
    assert nc.Device(str(device)) == device


def _target(parse: Callable[[bytes], None]) -> Callable[[bytes], bool]:
    @functools.wraps(parse)
    def target(data: bytes) -> bool:
        try:
            parse(data)
        except nc.NixlConnectError:
            return False
        return True

    return target


TARGETS = {
    "json": _target(_json),
    "packed": _target(_packed),
    "wire": _target(_wire),
    "envelope": _target(_envelope),
    "rows": _target(_rows),
    "whole": _target(_whole),
    "sealed": _target(_sealed),
    "arrays": _target(_arrays),
    "device": _target(_device),
}

if __name__ == "__main__":
    print(*TARGETS)

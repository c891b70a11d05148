"""NIXL's own metadata on the wire: a zlib stream, in text as base64 or hexadecimal.

The bytes come from anywhere: nothing is inflated beyond a limit.
"""

from __future__ import annotations

import base64
import sys
import zlib

from nixl_connect._native import envelope
from nixl_connect._native.envelope import Envelope
from nixl_connect._native.named import contradicts
from nixl_connect._native.text import TAG, blob_of
from nixl_connect.errors import MetadataError


def decode_nixl_metadata(text: str, limit: int) -> bytes:
    """Return NIXL's metadata from its wire form.

    Parameters
    ----------
    text : str
        The wire form.
    limit : int
        Most bytes that the metadata may have; the compressed form may have no more either, but
        for what zlib adds.

    Raises
    ------
    MetadataError
        Not base64 or hexadecimal, not one whole zlib stream, or over the limit.
    """
    if not text:
        raise MetadataError("nixl_metadata must not be empty")
    plain = blob_of(text, min(limit, sys.maxsize))
    if plain is not None:
        return plain
    if len(text) > 2 * limit + 16:
        raise MetadataError(
            f"nixl_metadata has {len(text)} characters, for over max_metadata_bytes, {limit}"
        )
    stream = stream_of(text)
    # zlib adds a little to what it cannot compress: 5 bytes for each 16 KiB, and a frame.
    if len(stream) > limit + limit // 1024 + 64:
        raise MetadataError(
            f"nixl_metadata has {len(stream)} compressed bytes, over max_metadata_bytes, {limit}"
        )
    return inflate(stream, limit)


def inflate(stream: bytes, limit: int) -> bytes:
    """Decompress one zlib stream of at most `limit` bytes, whose checksum must hold."""
    inflater = zlib.decompressobj()
    try:
        blob = inflater.decompress(stream, min(limit, sys.maxsize))
    except zlib.error as error:
        raise MetadataError(f"nixl_metadata is not a zlib stream: {error}") from None
    if not inflater.eof:
        if inflater.unconsumed_tail:
            raise MetadataError(f"nixl_metadata is over max_metadata_bytes, {limit}")
        raise MetadataError("nixl_metadata is cut short")
    if inflater.unused_data:
        raise MetadataError("nixl_metadata has bytes after its end")
    return blob


def read_nixl_metadata(text: str, limit: int) -> tuple[bytes, Envelope]:
    """Return NIXL's metadata of its wire form, as it is and parsed.

    Raises
    ------
    MetadataError
        Malformed, or over `limit` bytes.
    """
    blob = decode_nixl_metadata(text, limit)
    return blob, parse_nixl_metadata(blob)


def parse_nixl_metadata(blob: bytes) -> Envelope:
    """Parse NIXL's metadata strictly.

    Raises
    ------
    MetadataError
        Anything in it is not as NIXL writes it.
    """
    try:
        described = envelope.parse(blob)
    except ValueError as error:
        raise MetadataError(f"nixl_metadata: {error}") from None
    if any(contradicts(section.regions) for section in described.sections):
        # NIXL would refuse the second, and the peer with it for good.
        raise MetadataError("nixl_metadata: one region under two keys")
    return described


def stream_of(text: str) -> bytes:
    """Return the zlib stream of a wire form."""
    try:
        if text.startswith(TAG):
            return base64.b64decode(text[len(TAG) :], validate=True)
        return bytes.fromhex(text)
    except ValueError as error:
        raise MetadataError(f"nixl_metadata is neither base64 nor hexadecimal: {error}") from None

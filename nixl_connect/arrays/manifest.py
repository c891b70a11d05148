"""The message of named arrays: an operation's metadata, and which array is where in its memory.

JSON::

    {"nixl_connect_arrays": 1, "operation": {...}, "arrays": [[path, type, shape, order, region,
     offset], ...], "sequence": false, "seal": ""}

`path` is a list of names, one for each nested mapping; `order` is C or F; `region` the number of a
descriptor of the operation, and `offset` bytes within it. The compact form is a msgpack array of
the same fields, with the operation in its own binary form.

Nothing here is trusted before it is checked: the seal first, where there are keys, then every
number, against limits and against the descriptors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from nixl_connect._native.packing import Regions
from nixl_connect.arrays.dtypes import Named, itemsize
from nixl_connect.errors import ArgumentError, ArgumentTypeError, LibraryError, MetadataError
from nixl_connect.memory.tables import DescriptorTable
from nixl_connect.wire.metadata import RdmaMetadata

if TYPE_CHECKING:
    from nixl_connect.wire.auth import Seal

_VERSION = 1
MOST_NAME = 1024
"""Characters of a name."""
MOST_NESTED = 16
"""Names of a path."""
MOST_DIMENSIONS = 32


class Entry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """One array of a message."""

    path: list[str]
    type: str | list[Any]
    shape: list[int]
    order: str
    """C, or F where it is in Fortran order alone."""
    region: int
    offset: int

    @property
    def name(self) -> str:
        """The names of its path, joined by dots."""
        return ".".join(self.path)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * itemsize(self.type)


class _Json(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON form."""

    nixl_connect_arrays: int
    operation: msgspec.Raw
    arrays: list[Entry]
    sequence: bool = False
    seal: str = ""


_Compact = tuple[int, bytes, list[Entry], bool, str]
_json = msgspec.json.Decoder(_Json)
_json_encoder = msgspec.json.Encoder()
_compact = msgspec.msgpack.Decoder(_Compact)
_encoder = msgspec.msgpack.Encoder()


class Message:
    """What the one side hands out, and the other needs.

    Parameters
    ----------
    metadata : RdmaMetadata
        That of the operation.
    entries : list of Entry
        The arrays.
    sequence : bool
        Whether they are a sequence, without names that mean anything.
    seal : str
        That of the manifest; empty without keys.
    """

    __slots__ = ("entries", "metadata", "rows", "seal", "sequence")

    def __init__(
        self, metadata: RdmaMetadata, entries: list[Entry], *, sequence: bool, seal: str = ""
    ) -> None:
        self.metadata: RdmaMetadata = metadata
        self.rows: Regions | list[tuple[int, int]] = _rows_of(metadata)
        """Address and size of each region. (To index blocks is to look through their groups.)"""
        self.entries: list[Entry] = entries
        self.sequence: bool = sequence
        self.seal: str = seal

    def sign(self, seal: Seal) -> None:
        """Seal the manifest, which binds it to this operation."""
        self.seal = seal.sign(self.metadata.notification_key, self._body())

    def _body(self) -> bytes:
        try:
            return _encoder.encode((_VERSION, self.sequence, self.entries))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise MetadataError(f"arrays: {error}") from None

    def to_json(self) -> str:
        """Return the JSON form."""
        operation = msgspec.Raw(self.metadata.model_dump_json().encode())
        whole = _Json(_VERSION, operation, self.entries, self.sequence, self.seal)
        return _json_encoder.encode(whole).decode()

    def to_bytes(self) -> bytes:
        """Return the compact form."""
        return _encoder.encode(
            (_VERSION, self.metadata.to_bytes(), self.entries, self.sequence, self.seal)
        )

    @classmethod
    def parse(cls, message: str | bytes | bytearray | memoryview) -> Message:
        """Return what a message says, of either form. Knows then that it is well-formed, no more.

        Raises
        ------
        MetadataError
            It is malformed, or of a version that this release does not read.
        ArgumentTypeError
            It is neither text nor bytes.
        """
        if not isinstance(message, (str, bytes, bytearray, memoryview)):
            raise ArgumentTypeError(
                f"message must be text or bytes of an offer's message, not {type(message).__name__}"
            )
        try:
            # An array of msgpack begins with a byte that no JSON begins with.
            if isinstance(message, str) or bytes(message[:1]) < b"\x80":
                read = _json.decode(message)
                version, entries = read.nixl_connect_arrays, read.arrays
                sequence, seal = read.sequence, read.seal
                operation = bytes(read.operation)
                metadata = None
            else:
                version, operation, entries, sequence, seal = _compact.decode(message)
                metadata = RdmaMetadata.from_bytes(operation)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            if isinstance(error, MetadataError):
                raise
            raise MetadataError(f"arrays: not a message of arrays: {error}") from None
        if version != _VERSION:
            raise MetadataError(f"arrays: version {version} of messages, not {_VERSION}")
        if metadata is None:
            metadata = RdmaMetadata.model_validate_json(operation)
        return cls(metadata, entries, sequence=sequence, seal=seal)

    def check(self, seal: Seal | None, most: int) -> None:
        """Raise unless seal, names, types, shapes and places are such as an offer's are.

        Parameters
        ----------
        seal : Seal or None
            Where there are keys: the operation's and the manifest's have to be right.
        most : int
            How many arrays there may be.

        Raises
        ------
        AuthenticationError
            A seal is missing or wrong.
        MetadataError
            Anything else.
        LibraryError
            A type takes ml_dtypes, which is missing or too old.
        """
        if len(self.entries) > most:
            raise MetadataError(f"arrays: {len(self.entries)} arrays, more than max_arrays: {most}")
        if seal is not None:
            seal.check(self.metadata)
            seal.verify(self.metadata.notification_key, self._body(), self.seal)
        rows = self.rows
        for entry in self.entries:
            size = _size_of(entry)
            number = entry.region
            if not 0 <= number < len(rows):
                raise _malformed(entry, f"is in region {number} of {len(rows)}")
            whole = rows[number][1]
            if not 0 <= entry.offset <= whole - size:
                raise _malformed(
                    entry,
                    f"({size} bytes from {entry.offset} on) is not within the {whole} bytes of "
                    f"region {number}",
                )
        check_paths(entry.path for entry in self.entries)
        if self.sequence and any(x.path != [str(i)] for i, x in enumerate(self.entries)):
            raise MetadataError("arrays: those of a sequence are not named by their numbers")


def _rows_of(metadata: RdmaMetadata) -> Regions | list[tuple[int, int]]:
    described = metadata.descriptors
    if isinstance(described, DescriptorTable):
        return described.regions
    return [(item.ptr, item.size) for item in described]


def _size_of(entry: Entry) -> int:
    """Return the bytes of an array, once its description is known to be sound."""
    if entry.order not in ("C", "F"):
        raise _malformed(entry, f"is in order {entry.order[:80]!r}, not C or F")
    if len(entry.shape) > MOST_DIMENSIONS:
        raise _malformed(entry, f"has {len(entry.shape)} dimensions")
    try:
        size = least = itemsize(entry.type)
    except LibraryError:
        raise
    except ArgumentError as error:
        raise _malformed(entry, f"has {error}") from None
    for extent in entry.shape:
        size *= extent
        least *= extent or 1  # NumPy multiplies the others too where one is 0
        if extent < 0 or least >= 1 << 62:
            raise _malformed(entry, "has an impossible shape")
    return size


def _malformed(entry: Entry, fault: str) -> MetadataError:
    return MetadataError(f"arrays: {entry.name[:80]!r} {fault}")


def check_paths(paths: Iterable[list[str]]) -> None:
    """Raise MetadataError where names are too long, too many, or name two things."""
    joined: set[str] = set()
    above: set[str] = set()
    number = 0
    for path in paths:
        number += 1
        if len(path) == 1 and len(path[0]) <= MOST_NAME:  # as nearly all are
            joined.add(path[0])
            continue
        if not 0 < len(path) <= MOST_NESTED or sum(map(len, path)) > MOST_NAME:
            raise MetadataError(
                f"arrays: the name of an array has 1 to {MOST_NESTED} parts and at most "
                f"{MOST_NAME} characters, not {len(path)} and {sum(map(len, path))}"
            )
        joined.add(".".join(path))
        above.update(".".join(path[:i]) for i in range(1, len(path)))
    if len(joined) < number or not joined.isdisjoint(above):
        raise MetadataError("arrays: a name stands for two things")


def structure(entries: list[Entry], arrays: list[Any], *, sequence: bool) -> Any:
    """Return arrays as they were offered: a dict, nested as its names are, or a list."""
    if sequence:
        return list(arrays)
    top: dict[str, Any] = {}
    for entry, array in zip(entries, arrays, strict=True):
        level = top
        for name in entry.path[:-1]:
            level = level.setdefault(name, {})
        level[entry.path[-1]] = array
    return top


__all__ = ["MOST_DIMENSIONS", "MOST_NAME", "Entry", "Message", "Named", "check_paths", "structure"]

"""What the demo moves, in which order. Both processes derive the same plan from the total."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["a", "b"]
Kind = Literal["read", "write"]

SMALL_BYTES = 64
_MOST_SINGLE = 16
_MOST_MANY = 1024
_LARGE_DESCRIPTORS = 16
# Bounds the buffers: a larger share is moved by several operations.
_LARGEST_OPERATION = 256 * 1024 * 1024


@dataclass(frozen=True)
class Row:
    """Operations of one kind, direction and shape: one row of the table.

    Attributes
    ----------
    kind : str
        ``"read"`` or ``"write"``, what the mover does.
    mover : str
        The side that moves the data; the other owns the memory that is lent.
    operations : tuple of tuple of int
        For each operation the size of each of its descriptors, in bytes.
    counted : bool
        Whether it is part of the total; the first contact of two sides is not.
    """

    kind: Kind
    mover: Side
    operations: tuple[tuple[int, ...], ...]
    counted: bool = True

    @property
    def owner(self) -> Side:
        """The side whose memory is lent."""
        return "b" if self.mover == "a" else "a"

    @property
    def source(self) -> Side:
        """The side that has the data before the transfer."""
        return self.owner if self.kind == "read" else self.mover

    @property
    def target(self) -> Side:
        """The side that has the data after the transfer."""
        return self.mover if self.kind == "read" else self.owner

    @property
    def nbytes(self) -> int:
        """Bytes of all operations."""
        return sum(map(sum, self.operations))


@dataclass(frozen=True)
class Operation:
    """One operation of a row, and its place in the plan."""

    index: int
    row: Row
    sizes: tuple[int, ...]


def make_rows(total: int) -> list[Row]:
    """Return the rows that move `total` bytes (at least 4096): first contacts, then the counted."""
    rows = [Row("read", mover, ((SMALL_BYTES,),), counted=False) for mover in ("b", "a")]
    pairs: list[tuple[Kind, Side]] = [
        ("read", "b"),
        ("read", "a"),
        ("write", "b"),
        ("write", "a"),
    ]
    for (kind, mover), share in zip(pairs, _split(total, len(pairs)), strict=True):
        rows += [Row(kind, mover, shape) for shape in _shapes(share)]
    return rows


def make_operations(rows: list[Row]) -> list[Operation]:
    """Return the operations of all rows, numbered in their order."""
    flat = [(row, sizes) for row in rows for sizes in row.operations]
    return [Operation(index, row, sizes) for index, (row, sizes) in enumerate(flat)]


def _shapes(share: int) -> list[tuple[tuple[int, ...], ...]]:
    """Return operations that move `share` bytes in all: one and many, small and large."""
    count = share // (4 * SMALL_BYTES)
    one_small = ((SMALL_BYTES,),) * min(_MOST_SINGLE, count)
    many_small = ((SMALL_BYTES,) * min(_MOST_MANY, count),)
    rest = share - SMALL_BYTES * (len(one_small) + len(many_small[0]))
    one_large, many_large = (
        _split(half, -(-half // _LARGEST_OPERATION)) for half in _split(rest, 2)
    )
    return [
        one_small,
        many_small,
        tuple((size,) for size in one_large),
        tuple(tuple(_split(size, _LARGE_DESCRIPTORS)) for size in many_large),
    ]


def _split(total: int, parts: int) -> list[int]:
    """Split `total` into `parts` that differ by at most 1."""
    each, more = divmod(total, parts)
    return [each + (part < more) for part in range(parts)]

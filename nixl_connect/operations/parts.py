"""Which parts of a peer's memory a transfer is about, where it is not about all of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from operator import index
from typing import TypeAlias

from nixl_connect.errors import ArgumentError, ArgumentTypeError

Part: TypeAlias = "int | tuple[int, int, int]"
"""A descriptor of the peer's, by its index; or index, offset and length, in bytes, within it."""
Parts: TypeAlias = "Sequence[Part]"
"""The parts of a peer's memory, one for each local descriptor."""


def rows_of(
    parts: Iterable[Part], number: int, size_of: Callable[[int], int]
) -> list[tuple[int, int, int]]:
    """Return parts as (index, offset, length).

    Parameters
    ----------
    parts : iterable of int or of (int, int, int)
        As the program gives them.
    number : int
        How many descriptors the peer has.
    size_of : callable
        Returns the bytes of one of them.

    Raises
    ------
    ArgumentTypeError
        Something is not an integer, or not three of them.
    ArgumentError
        There are none; one is empty or out of range; or two have bytes in common.
    """
    try:
        given = list(parts)
    except TypeError:
        raise ArgumentTypeError(
            f"parts must be a sequence of indices, or of (index, offset, length), "
            f"not {type(parts).__name__}"
        ) from None
    if not given:
        raise ArgumentError("parts must not be empty; without parts everything is moved")
    rows = [_row(i, part, number, size_of) for i, part in enumerate(given)]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    for before, after in itertools.pairwise(order):
        one, other = rows[before], rows[after]
        if one[0] == other[0] and one[1] + one[2] > other[1]:
            i, j = sorted((before, after))
            raise ArgumentError(f"parts[{i}] and parts[{j}] overlap in descriptor {one[0]}")
    return rows


def _row(i: int, part: Part, most: int, size_of: Callable[[int], int]) -> tuple[int, int, int]:
    length: int | None
    try:
        if isinstance(part, bool):
            raise TypeError
        if isinstance(part, Iterable):
            number, offset, length = map(index, part)
        else:
            number, offset, length = index(part), 0, None
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"parts[{i}] must be an index, or (index, offset, length), not {part!r:.80}"
        ) from None
    if not 0 <= number < most:
        raise ArgumentError(
            f"parts[{i}] is of descriptor {number}, but the peer has {most} descriptors"
        )
    size = size_of(number)
    if length is None:
        length = size
    if length < 1 or offset < 0 or offset + length > size:
        raise ArgumentError(
            f"parts[{i}] is {length} bytes from {offset} on, but descriptor {number} has {size} "
            "bytes"
        )
    return number, offset, length

# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Regions that a peer names, each with its key.

There may be a hundred thousand, so they are one C array, whose keys stay where they were read.
"""

from collections.abc import Iterator
from typing import Final

class Named:
    """An immutable sequence of ``(address, length, device, key)``, made on access."""

    count: Final[int]

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> tuple[int, int, int, bytes]: ...
    def __iter__(self) -> Iterator[tuple[int, int, int, bytes]]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __repr__(self) -> str: ...

class Holders:
    """Finds which of some regions holds a row, at the next one first: most lists agree in order."""

    def __new__(cls, regions: object) -> Holders: ...

def contradicts(regions: list[tuple[int, int, int, bytes]] | Named) -> bool:
    """Whether one region is named under two keys."""

def keys_of(regions: list[tuple[int, int, int, bytes]] | Named) -> dict[int, set[bytes]]:
    """Return the keys, by device."""

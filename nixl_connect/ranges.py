"""Values by address range, found by the ranges that cover or meet another."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

V = TypeVar("V")


class RangeMap(Generic[V]):
    """A map from half-open ranges ``(start, end)`` to values. Ranges may overlap.

    The ranges are kept sorted in classes of similar length, so a look-up, which walks back from the
    end of its range for as far as the longest of a class could reach, stays in the neighbourhood
    however large the map is and however unequal the ranges are. Not thread-safe.
    """

    __slots__ = ("_classes", "_values")

    def __init__(self) -> None:
        # By the number of bits of the length: those ranges, sorted.
        self._classes: dict[int, list[tuple[int, int]]] = {}
        self._values: dict[tuple[int, int], V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, start: int, end: int) -> V | None:
        """Return the value of exactly this range."""
        return self._values.get((start, end))

    def add(self, start: int, end: int, value: V) -> None:
        """Add a range that is not in the map."""
        insort(self._classes.setdefault((end - start).bit_length(), []), (start, end))
        self._values[start, end] = value

    def remove(self, start: int, end: int) -> None:
        """Remove a range that is in the map."""
        del self._values[start, end]
        bits = (end - start).bit_length()
        ranges = self._classes[bits]
        del ranges[bisect_left(ranges, (start, end))]
        if not ranges:
            del self._classes[bits]

    def meeting(self, start: int, end: int) -> Iterator[tuple[tuple[int, int], V]]:
        """Yield the ranges that have an address in common with this one, and their values."""
        for bits, ranges in self._classes.items():
            for i in range(bisect_left(ranges, (end, 0)) - 1, -1, -1):
                known = ranges[i]
                if known[0] + (1 << bits) <= start:
                    break
                if known[1] > start:
                    yield known, self._values[known]

    def neighbour(self, start: int, end: int) -> V | None:
        """Return the value of the range at or next to this one in sorted order, if it holds it.

        Only the first range that is not less and the last that is less are looked at, as NIXL does
        (``nixlSecDescList::getCoveringIndex``).
        """
        wanted = (start, end)
        after: tuple[int, int] | None = None
        before: tuple[int, int] | None = None
        for ranges in self._classes.values():
            i = bisect_left(ranges, wanted)
            if i < len(ranges) and (after is None or ranges[i] < after):
                after = ranges[i]
            if i and (before is None or ranges[i - 1] > before):
                before = ranges[i - 1]
        for known in (after, before):
            if known is not None and known[0] <= start and known[1] >= end:
                return self._values[known]
        return None

    def covering(self, start: int, end: int) -> Iterator[V]:
        """Yield the values of the ranges that hold all of this one."""
        for known, value in self.meeting(start, end):
            if known[0] <= start and known[1] >= end:
                yield value

# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Values by address range, found by the ranges that cover or meet another.

The ranges are kept sorted in classes of similar length, so a look-up, which walks back from the end
of its range for as far as the longest of a class could reach, stays in the neighbourhood however
many there are and however unequal they are.

Ranges are given by their first address and the one after their last, below 2**64, and may overlap.
All is to be used under the caller's lock. What the values are is the caller's affair.
"""

class RangeMap:
    """A map from ranges of addresses to objects, under the GIL."""

    def __len__(self) -> int: ...
    def get(self, start: int, end: int) -> object:
        """Return the value of exactly this range, or None."""

    def add(self, start: int, end: int, value: object) -> None:
        """Add a range that is not in the map."""

    def add_many(self, items: list[tuple[int, int, object]]) -> None:
        """Add ranges that are not in the map, each (start, end, value), in order."""

    def remove(self, start: int, end: int) -> None:
        """Remove a range that is in the map."""

    def covering(self, start: int, end: int) -> list[object]:
        """Return the values of the ranges that hold all of this one."""

    def neighbour(self, start: int, end: int) -> object:
        """Return the value of the range at or next to this one in sorted order, if it holds it."""

class Spans:
    """How far ranges with the same value reach together: disjoint spans, however many ranges.

    A span on which ranges with different values have met has the value None.
    """

    def __len__(self) -> int: ...
    def admits(self, start: int, end: int, value: object) -> bool:
        """Whether no span that has an address in common with this range has another value."""

    def add(self, start: int, end: int, value: object) -> None:
        """Add a range: the spans that it meets become one."""

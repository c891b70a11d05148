# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Values by address range, found by the ranges that cover or meet another."""

from nixl_connect._native.packing import Regions
from nixl_connect.registrations import Registration

class Class:
    """The ranges whose lengths have as many bits, sorted by start and end."""

    def __new__(cls, bits: int) -> Class: ...

class RangeMap:
    """A map from half-open ranges of addresses to values. Ranges may overlap.

    The ranges are kept sorted in classes of similar length, so a look-up, which walks back from the
    end of its range for as far as the longest of a class could reach, stays in the neighbourhood
    however large the map is and however unequal the ranges are. To be used under the caller's lock.

    Ranges are given by their first address and the one after their last, below 2**64.
    """

    def __new__(cls) -> RangeMap: ...
    def __len__(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Lengths of all ranges together."""

    def get(self, start: int, end: int) -> object:
        """Return the value of exactly this range, or None."""

    def add(self, start: int, end: int, value: object) -> None:
        """Add a range that is not in the map."""

    def remove(self, start: int, end: int) -> None:
        """Remove a range that is in the map."""

    def covering(self, start: int, end: int) -> list[object]:
        """Return the values of the ranges that hold all of this one."""

    def neighbour(self, start: int, end: int) -> object:
        """Return the value of the range at or next to this one in sorted order, if it holds it.

        Only the first range that is not less and the last that is less are looked at, as NIXL does
        (``nixlSecDescList::getCoveringIndex``).
        """

class Spans:
    """How far ranges with the same value reach together: disjoint spans, however many ranges.

    A span on which ranges with different values have met has the value None.
    """

    def __new__(cls) -> Spans: ...
    def __len__(self) -> int: ...
    def admits(self, start: int, end: int, value: object) -> bool:
        """Whether no span that has an address in common with this range has another value."""

    def add(self, start: int, end: int, value: object) -> None:
        """Add a range: the spans that it meets become one."""

def take(found: list[Registration] | list[object], held: list[Registration]) -> None:
    """Count each of these values as held once more, and append it: in one step, for other threads
    and for signal handlers."""

def put(fresh: list[Registration], maps: dict[int, RangeMap], made: list[Registration]) -> None:
    """Add values by their `row` (see `give_up`) to a map for each device, and to `made`."""

def give_up(
    held: list[Registration],
    maps: dict[int, dict[int, RangeMap]],
    idle: dict[int, list[tuple[int, int, int]]],
    owners: list[object],
) -> None:
    """Undo `take`, emptying `held`, in one step. What nobody holds is taken out.

    Parameters
    ----------
    held : list
        Values with `row`, the start, length and device number of their range, `mem_type`, and
        `owner`, what keeps that memory alive.
    maps : dict of int to dict of int to RangeMap
        Where they are, by `mem_type` and device number.
    idle : dict of int to list
        Takes the rows of those that nobody holds, by `mem_type`.
    owners : list
        Takes their owners.
    """

def neighbours(maps: dict[int, RangeMap], regions: Regions) -> list[object]:
    """Return `RangeMap.neighbour` of each row."""

def coverings(maps: dict[int, RangeMap], regions: Regions) -> list[object] | None:
    """Return `RangeMap.covering` of all rows together, or None if a row is not covered.

    What covers one row after another is named once.
    """

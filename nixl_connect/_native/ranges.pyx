"""Values by address range, found by the ranges that cover or meet another."""

from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

from nixl_connect._native.packing cimport Regions

cdef extern from *:
    """
    static inline int nc_bits(uint64_t n) { return n ? 64 - __builtin_clzll(n) : 0; }
    """
    int nc_bits(uint64_t n) nogil


cdef bint _less(const Range* a, uint64_t start, uint64_t end) noexcept nogil:
    return a.start < start or (a.start == start and a.end < end)


cdef class Class:
    """The ranges whose lengths have as many bits, sorted by start and end."""

    def __cinit__(self, int bits):
        self.values = []
        self.bits = bits
        self.reach = UINT64_MAX if bits >= 64 else (<uint64_t>1 << bits) - 1

    def __dealloc__(self):
        free(self.ranges)

    cdef Py_ssize_t lower_bound(self, uint64_t start, uint64_t end) noexcept nogil:
        """Return the index of the first range that is not less."""
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.count
        cdef Py_ssize_t middle
        # Allocators hand out rising addresses more often than not.
        if high and _less(&self.ranges[high - 1], start, end):
            return high
        while low < high:
            middle = (low + high) // 2
            if _less(&self.ranges[middle], start, end):
                low = middle + 1
            else:
                high = middle
        return low

    cdef Py_ssize_t last_before(self, uint64_t end) noexcept nogil:
        """Return the index of the last range that starts before `end`, or -1."""
        return self.lower_bound(end, 0) - 1

    cdef int insert(self, uint64_t start, uint64_t end, object value) except -1:
        cdef Py_ssize_t i = self.lower_bound(start, end)
        cdef Py_ssize_t capacity
        cdef Range* ranges
        if self.count == self.capacity:
            capacity = max(2 * self.capacity, 8)
            ranges = <Range*>realloc(self.ranges, capacity * sizeof(Range))
            if ranges is NULL:
                raise MemoryError
            self.ranges = ranges
            self.capacity = capacity
        self.values.insert(i, value)
        memmove(&self.ranges[i + 1], &self.ranges[i], (self.count - i) * sizeof(Range))
        self.ranges[i].start = start
        self.ranges[i].end = end
        self.count += 1
        return 0

    cdef void remove(self, Py_ssize_t i):
        self.count -= 1
        memmove(&self.ranges[i], &self.ranges[i + 1], (self.count - i) * sizeof(Range))
        del self.values[i]


cdef class RangeMap:
    """A map from half-open ranges of addresses to values. Ranges may overlap.

    The ranges are kept sorted in classes of similar length, so a look-up, which walks back from the
    end of its range for as far as the longest of a class could reach, stays in the neighbourhood
    however large the map is and however unequal the ranges are. To be used under the caller's lock.

    Ranges are given by their first address and the one after their last, below 2**64.
    """

    def __cinit__(self):
        self.classes = []

    def __len__(self) -> int:
        cdef Class group
        cdef Py_ssize_t count = 0
        for group in self.classes:
            count += group.count
        return count

    @property
    def nbytes(self) -> int:
        """Lengths of all ranges together."""
        cdef Class group
        cdef Py_ssize_t i
        total = 0
        for group in self.classes:
            for i in range(group.count):
                total += group.ranges[i].end - group.ranges[i].start
        return total

    cdef Class of_length(self, uint64_t length):
        cdef int bits = nc_bits(length)
        cdef Class group
        for group in self.classes:
            if group.bits == bits:
                return group
        return None

    def get(self, uint64_t start, uint64_t end) -> object:
        """Return the value of exactly this range, or None."""
        cdef Class group = self.of_length(end - start)
        cdef Py_ssize_t i
        if group is not None:
            i = group.lower_bound(start, end)
            if i < group.count and (
                group.ranges[i].start == start and group.ranges[i].end == end
            ):
                return group.values[i]
        return None

    def add(self, uint64_t start, uint64_t end, value: object) -> None:
        """Add a range that is not in the map."""
        cdef Class group = self.of_length(end - start)
        if group is None:
            group = Class(nc_bits(end - start))
            self.classes.append(group)
        group.insert(start, end, value)

    def remove(self, uint64_t start, uint64_t end) -> None:
        """Remove a range that is in the map."""
        cdef Class group = self.of_length(end - start)
        cdef Py_ssize_t i = -1 if group is None else group.lower_bound(start, end)
        if i < 0 or i == group.count or (
            group.ranges[i].start != start or group.ranges[i].end != end
        ):
            raise KeyError((start, end))
        group.remove(i)

    cdef bint add_covering(self, uint64_t start, uint64_t end, list found) except -1:
        """Append the values of the ranges that hold all of this one; whether there are any."""
        cdef Class group
        cdef Py_ssize_t i
        cdef bint some = False
        for group in self.classes:
            i = group.last_before(start + 1)
            while i >= 0 and start - group.ranges[i].start <= group.reach:
                if group.ranges[i].end >= end:
                    some = True
                    found.append(group.values[i])
                i -= 1
        return some

    def covering(self, uint64_t start, uint64_t end) -> list[object]:
        """Return the values of the ranges that hold all of this one."""
        found = []
        self.add_covering(start, end, found)
        return found

    cpdef object neighbour(self, uint64_t start, uint64_t end):
        """Return the value of the range at or next to this one in sorted order, if it holds it.

        Only the first range that is not less and the last that is less are looked at, as NIXL does
        (``nixlSecDescList::getCoveringIndex``).
        """
        cdef Range* after = NULL
        cdef Range* before = NULL
        cdef Class group
        cdef object value_after = None
        cdef object value_before = None
        cdef Py_ssize_t i
        for group in self.classes:
            i = group.lower_bound(start, end)
            if i < group.count and (
                after is NULL or _less(&group.ranges[i], after.start, after.end)
            ):
                after = &group.ranges[i]
                value_after = group.values[i]
            if i and (
                before is NULL or _less(before, group.ranges[i - 1].start, group.ranges[i - 1].end)
            ):
                before = &group.ranges[i - 1]
                value_before = group.values[i - 1]
        if after is not NULL and after.start <= start and after.end >= end:
            return value_after
        if before is not NULL and before.start <= start and before.end >= end:
            return value_before
        return None


cdef class Spans:
    """How far ranges with the same value reach together: disjoint spans, however many ranges.

    A span on which ranges with different values have met has the value None.
    """

    cdef Class spans

    def __cinit__(self):
        self.spans = Class(64)

    def __len__(self) -> int:
        return self.spans.count

    cdef Py_ssize_t first_beyond(self, uint64_t start) noexcept nogil:
        """Return the index of the first span that ends beyond an address."""
        cdef Py_ssize_t i = self.spans.lower_bound(start, 0)
        return i - 1 if i and self.spans.ranges[i - 1].end > start else i

    def admits(self, uint64_t start, uint64_t end, value: object) -> bool:
        """Whether no span that has an address in common with this range has another value."""
        cdef Py_ssize_t i = self.first_beyond(start)
        while i < self.spans.count and self.spans.ranges[i].start < end:
            if self.spans.values[i] != value:
                return False
            i += 1
        return True

    def add(self, uint64_t start, uint64_t end, value: object) -> None:
        """Add a range: the spans that it meets become one."""
        cdef Py_ssize_t i = self.first_beyond(start)
        if i and self.spans.ranges[i - 1].end == start and self.spans.values[i - 1] == value:
            i -= 1
        while i < self.spans.count and (
            self.spans.ranges[i].start < end
            or (self.spans.ranges[i].start == end and self.spans.values[i] == value)
        ):
            if self.spans.values[i] != value:
                value = None
            start = min(start, self.spans.ranges[i].start)
            end = max(end, self.spans.ranges[i].end)
            self.spans.remove(i)
        self.spans.insert(start, end, value)


def take(list found not None, list held not None) -> None:
    """Count each of these values as held once more, and append it: in one step, for other threads
    and for signal handlers."""
    for value in found:
        value.holders += 1
        held.append(value)


def put(list fresh not None, dict maps not None, list made not None) -> None:
    """Add values by their `row` (see `give_up`) to a map for each device, and to `made`."""
    cdef RangeMap ranges
    for value in fresh:
        start, length, device = value.row
        ranges = maps.get(device)
        if ranges is None:
            ranges = maps[device] = RangeMap()
        ranges.add(start, start + length, value)
        made.append(value)


def give_up(
    list held not None, dict maps not None, dict idle not None, list owners not None
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
    cdef RangeMap ranges
    while held:
        value = held.pop()
        value.holders -= 1
        if value.holders == 0:
            start, length, device = value.row
            ranges = maps[value.mem_type][device]
            ranges.remove(start, start + length)
            idle.setdefault(value.mem_type, []).append(value.row)
            owners.append(value.owner)


# The same for whole tables, with a map for each device number. Rows of a device without a map have
# no values.


def neighbours(dict maps not None, Regions regions not None) -> list[object]:
    """Return `RangeMap.neighbour` of each row."""
    cdef Py_ssize_t i
    cdef uint64_t* row
    cdef RangeMap ranges = None
    cdef uint64_t device = 0
    found = []
    for i in range(regions.count):
        row = &regions.rows[3 * i]
        if i == 0 or row[2] != device:
            device = row[2]
            ranges = maps.get(device)
        found.append(None if ranges is None else ranges.neighbour(row[0], row[0] + row[1]))
    return found


def coverings(dict maps not None, Regions regions not None) -> list[object] | None:
    """Return `RangeMap.covering` of all rows together, or None if a row is not covered.

    What covers one row after another is named once.
    """
    cdef Py_ssize_t i
    cdef uint64_t* row
    cdef RangeMap ranges = None
    cdef uint64_t device = 0
    cdef list found = []
    cdef list last = []
    cdef list these
    for i in range(regions.count):
        row = &regions.rows[3 * i]
        if i == 0 or row[2] != device:
            device = row[2]
            ranges = maps.get(device)
        these = []
        if ranges is None or not ranges.add_covering(row[0], row[0] + row[1], these):
            return None
        if these != last:
            found.extend(these)
            last = these
    return found

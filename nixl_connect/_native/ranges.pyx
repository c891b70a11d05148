"""Values by address range, found by the ranges that cover or meet another.

The ranges are kept sorted in classes of similar length, so a look-up, which walks back from the end
of its range for as far as the longest of a class could reach, stays in the neighbourhood however
many there are and however unequal they are.

Ranges are given by their first address and the one after their last, below 2**64, and may overlap.
All is to be used under the caller's lock. What the values are is the caller's affair.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove, memset

cdef extern from *:
    """
    static inline int nc_bits(uint64_t n) { return n ? 64 - __builtin_clzll(n) : 0; }
    """
    int nc_bits(uint64_t n) nogil


cdef bint _less(const Range* a, uint64_t start, uint64_t end) noexcept nogil:
    return a.start < start or (a.start == start and a.end < end)


cdef Py_ssize_t _lower_bound(const Class* group, uint64_t start, uint64_t end) noexcept nogil:
    """Return the index of the first range that is not less."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = group.count
    cdef Py_ssize_t middle
    # Allocators hand out rising addresses more often than not.
    if high and _less(&group.ranges[high - 1], start, end):
        return high
    while low < high:
        middle = (low + high) // 2
        if _less(&group.ranges[middle], start, end):
            low = middle + 1
        else:
            high = middle
    return low


cdef bint _reserve(Class* group, Py_ssize_t more) noexcept nogil:
    """Have room for so many more; False where there is no memory."""
    cdef Py_ssize_t capacity = group.capacity
    cdef Range* ranges
    while capacity < group.count + more:
        capacity = max(2 * capacity, 8)
    if capacity > group.capacity:
        ranges = <Range*>realloc(group.ranges, capacity * sizeof(Range))
        if ranges is NULL:
            return False
        group.ranges = ranges
        group.capacity = capacity
    return True


cdef void _insert(Class* group, const Range* fresh) noexcept nogil:
    """Insert a range, for which there is room."""
    cdef Py_ssize_t i = _lower_bound(group, fresh.start, fresh.end)
    memmove(&group.ranges[i + 1], &group.ranges[i], (group.count - i) * sizeof(Range))
    group.ranges[i] = fresh[0]
    group.count += 1


cdef void _remove(Class* group, Py_ssize_t i) noexcept nogil:
    group.count -= 1
    memmove(&group.ranges[i], &group.ranges[i + 1], (group.count - i) * sizeof(Range))


cdef Class* _class_of(const Ranges* ranges, uint64_t length) noexcept nogil:
    cdef int bits = nc_bits(length)
    cdef int i
    for i in range(ranges.count):
        if ranges.classes[i].bits == bits:
            return &ranges.classes[i]
    return NULL


cdef Class* _made_class_of(Ranges* ranges, uint64_t length) noexcept nogil:
    """Return the class for a length, made if need be; NULL where there is no memory."""
    cdef Class* group = _class_of(ranges, length)
    cdef Class* classes
    cdef int capacity
    if group is not NULL:
        return group
    if ranges.count == ranges.capacity:
        capacity = max(2 * ranges.capacity, 2)
        classes = <Class*>realloc(ranges.classes, capacity * sizeof(Class))
        if classes is NULL:
            return NULL
        ranges.classes = classes
        ranges.capacity = capacity
    group = &ranges.classes[ranges.count]
    ranges.count += 1
    memset(group, 0, sizeof(Class))
    group.bits = nc_bits(length)
    group.reach = UINT64_MAX if group.bits >= 64 else (<uint64_t>1 << group.bits) - 1
    return group


cdef void* find(const Ranges* ranges, uint64_t start, uint64_t end) noexcept nogil:
    """Return the value of exactly this range, or NULL."""
    cdef Class* group = _class_of(ranges, end - start)
    cdef Py_ssize_t i
    if group is not NULL:
        i = _lower_bound(group, start, end)
        if i < group.count and group.ranges[i].start == start and group.ranges[i].end == end:
            return group.ranges[i].value
    return NULL


cdef void* neighbour_of(const Ranges* ranges, uint64_t start, uint64_t end) noexcept nogil:
    """Return the value of the range at or next to this one in sorted order, if it holds it.

    Only the first range that is not less and the last that is less are looked at, as NIXL does
    (``nixlSecDescList::getCoveringIndex``).
    """
    cdef Range* after = NULL
    cdef Range* before = NULL
    cdef Class* group
    cdef Py_ssize_t i
    cdef int g
    for g in range(ranges.count):
        group = &ranges.classes[g]
        i = _lower_bound(group, start, end)
        if i < group.count and (after is NULL or _less(&group.ranges[i], after.start, after.end)):
            after = &group.ranges[i]
        if i and (
            before is NULL or _less(before, group.ranges[i - 1].start, group.ranges[i - 1].end)
        ):
            before = &group.ranges[i - 1]
    if after is not NULL and after.start <= start and after.end >= end:
        return after.value
    if before is not NULL and before.start <= start and before.end >= end:
        return before.value
    return NULL


cdef void* next_holder(
    const Ranges* ranges, Walk* walk, uint64_t start, uint64_t end
) noexcept nogil:
    """Return the value of the next range that holds all of this one; NULL after the last."""
    cdef Class* group
    cdef Range* known
    while walk.group <= ranges.count:
        if walk.group:
            group = &ranges.classes[walk.group - 1]
            while walk.at >= 0:
                known = &group.ranges[walk.at]
                if start - known.start > group.reach:
                    break
                walk.at -= 1
                if known.end >= end:
                    return known.value
        walk.group += 1
        if walk.group <= ranges.count:
            # From the last that starts no later.
            walk.at = _lower_bound(&ranges.classes[walk.group - 1], start + 1, 0) - 1
    return NULL


cdef void _merge(Class* group, const Range* fresh, Py_ssize_t count) noexcept nogil:
    """Add the ranges of this class among some, which are sorted. There is room."""
    cdef Py_ssize_t to = group.count
    cdef Py_ssize_t old = group.count - 1
    cdef Py_ssize_t i
    for i in range(count):
        to += nc_bits(fresh[i].end - fresh[i].start) == group.bits
    group.count = to
    i = count - 1
    while i >= 0:
        if nc_bits(fresh[i].end - fresh[i].start) != group.bits:
            i -= 1
            continue
        to -= 1
        if old >= 0 and not _less(&group.ranges[old], fresh[i].start, fresh[i].end):
            group.ranges[to] = group.ranges[old]
            old -= 1
        else:
            group.ranges[to] = fresh[i]
            i -= 1


cdef bint add_all(Ranges* ranges, const Range* fresh, Py_ssize_t count) noexcept nogil:
    """Add ranges that are not there, sorted. False, and none, where there is no memory."""
    cdef Class* group
    cdef Py_ssize_t i
    cdef int g
    for i in range(count):
        group = _made_class_of(ranges, fresh[i].end - fresh[i].start)
        if group is NULL or not _reserve(group, count):
            return False
    if count == 1:
        _insert(group, fresh)
        return True
    for g in range(ranges.count):
        _merge(&ranges.classes[g], fresh, count)
    return True


cdef void* take_away(Ranges* ranges, uint64_t start, uint64_t end) noexcept nogil:
    """Remove a range; return its value, or NULL where it is not there."""
    cdef Class* group = _class_of(ranges, end - start)
    cdef Py_ssize_t i = -1 if group is NULL else _lower_bound(group, start, end)
    cdef void* value
    if i < 0 or i == group.count or (
        group.ranges[i].start != start or group.ranges[i].end != end
    ):
        return NULL
    value = group.ranges[i].value
    _remove(group, i)
    return value


cdef void keep_if(Ranges* ranges, bint (*wanted)(void*) noexcept nogil) noexcept nogil:
    """Remove all whose values are not wanted."""
    cdef Class* group
    cdef Py_ssize_t i
    cdef Py_ssize_t kept
    cdef int g
    for g in range(ranges.count):
        group = &ranges.classes[g]
        kept = 0
        for i in range(group.count):
            if wanted(group.ranges[i].value):
                group.ranges[kept] = group.ranges[i]
                kept += 1
        group.count = kept


cdef void clear(Ranges* ranges) noexcept nogil:
    """Free all."""
    cdef int g
    for g in range(ranges.count):
        free(ranges.classes[g].ranges)
    free(ranges.classes)
    memset(ranges, 0, sizeof(Ranges))


@cython.no_gc  # its values are of no kind that could refer back
cdef class RangeMap:
    """A map from ranges of addresses to objects, under the GIL."""

    cdef Ranges ranges

    def __dealloc__(self):
        cdef int g
        cdef Py_ssize_t i
        for g in range(self.ranges.count):
            for i in range(self.ranges.classes[g].count):
                Py_DECREF(<object>self.ranges.classes[g].ranges[i].value)
        clear(&self.ranges)

    def __len__(self) -> int:
        cdef Py_ssize_t count = 0
        cdef int g
        for g in range(self.ranges.count):
            count += self.ranges.classes[g].count
        return count

    def get(self, uint64_t start, uint64_t end) -> object:
        """Return the value of exactly this range, or None."""
        cdef void* value = find(&self.ranges, start, end)
        return None if value is NULL else <object>value

    def add(self, uint64_t start, uint64_t end, object value) -> None:
        """Add a range that is not in the map."""
        cdef Range fresh
        fresh.start, fresh.end, fresh.value = start, end, <void*>value
        if not add_all(&self.ranges, &fresh, 1):
            raise MemoryError
        Py_INCREF(value)

    def add_many(self, list items not None) -> None:
        """Add ranges that are not in the map, each (start, end, value), in order."""
        cdef Range* fresh = <Range*>realloc(NULL, max(len(items), 1) * sizeof(Range))
        cdef Py_ssize_t i
        if fresh is NULL:
            raise MemoryError
        try:
            for i in range(len(items)):
                start, end, value = items[i]
                fresh[i].start, fresh[i].end, fresh[i].value = start, end, <void*>value
            if items and not add_all(&self.ranges, fresh, len(items)):
                raise MemoryError
            for _, _, value in items:
                Py_INCREF(value)
        finally:
            free(fresh)

    def remove(self, uint64_t start, uint64_t end) -> None:
        """Remove a range that is in the map."""
        cdef void* value = take_away(&self.ranges, start, end)
        if value is NULL:
            raise KeyError((start, end))
        Py_DECREF(<object>value)

    def covering(self, uint64_t start, uint64_t end) -> list[object]:
        """Return the values of the ranges that hold all of this one."""
        cdef Walk walk
        cdef void* value
        memset(&walk, 0, sizeof(Walk))
        found = []
        value = next_holder(&self.ranges, &walk, start, end)
        while value is not NULL:
            found.append(<object>value)
            value = next_holder(&self.ranges, &walk, start, end)
        return found

    def neighbour(self, uint64_t start, uint64_t end) -> object:
        """Return the value of the range at or next to this one in sorted order, if it holds it."""
        cdef void* value = neighbour_of(&self.ranges, start, end)
        return None if value is NULL else <object>value


@cython.no_gc  # as RangeMap
cdef class Spans:
    """How far ranges with the same value reach together: disjoint spans, however many ranges.

    A span on which ranges with different values have met has the value None.
    """

    cdef Class spans

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.spans.count):
            Py_DECREF(<object>self.spans.ranges[i].value)
        free(self.spans.ranges)

    def __len__(self) -> int:
        return self.spans.count

    cdef Py_ssize_t first_beyond(self, uint64_t start) noexcept nogil:
        """Return the index of the first span that ends beyond an address."""
        cdef Py_ssize_t i = _lower_bound(&self.spans, start, 0)
        return i - 1 if i and self.spans.ranges[i - 1].end > start else i

    def admits(self, uint64_t start, uint64_t end, object value) -> bool:
        """Whether no span that has an address in common with this range has another value."""
        cdef Py_ssize_t i = self.first_beyond(start)
        while i < self.spans.count and self.spans.ranges[i].start < end:
            if <object>self.spans.ranges[i].value != value:
                return False
            i += 1
        return True

    def add(self, uint64_t start, uint64_t end, object value) -> None:
        """Add a range: the spans that it meets become one."""
        cdef Range fresh
        cdef Range* span
        cdef Py_ssize_t i = self.first_beyond(start)
        if not _reserve(&self.spans, 1):
            raise MemoryError
        if i and self.spans.ranges[i - 1].end == start and (
            <object>self.spans.ranges[i - 1].value == value
        ):
            i -= 1
        while i < self.spans.count:
            span = &self.spans.ranges[i]
            same = <object>span.value == value
            if not (span.start < end or (span.start == end and same)):
                break
            if not same:
                value = None
            start, end = min(start, span.start), max(end, span.end)
            known = <object>span.value
            Py_DECREF(known)
            _remove(&self.spans, i)
        fresh.start, fresh.end, fresh.value = start, end, <void*>value
        _insert(&self.spans, &fresh)
        Py_INCREF(value)

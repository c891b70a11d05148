"""Regions that a peer names, each with its key.

There may be a hundred thousand, so they are one C array, whose keys stay where they were read.
"""

from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcmp

from collections.abc import Iterator


cdef class Named:
    """An immutable sequence of ``(address, length, device, key)``, made on access."""

    def __dealloc__(self):
        free(self.regions)

    cdef int allocate(self, bytes text, Py_ssize_t count) except -1:
        """Make room for regions, to be filled, whose keys are in a text."""
        self.regions = <Region*>malloc(max(count, 1) * sizeof(Region))
        if self.regions is NULL:
            raise MemoryError
        self.text = text
        self.count = count
        return 0

    cdef bytes key(self, Py_ssize_t i):
        cdef Region* region = &self.regions[i]
        return (<const char*>self.text)[region.key:region.key + region.key_size]

    cdef tuple at(self, Py_ssize_t i):
        cdef Region* region = &self.regions[i]
        return region.address, region.length, region.device, self.key(i)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, Py_ssize_t i) -> tuple[int, int, int, bytes]:
        if i < 0:
            i += self.count
        if not 0 <= i < self.count:
            raise IndexError("region index out of range")
        return self.at(i)

    def __iter__(self) -> Iterator[tuple[int, int, int, bytes]]:
        cdef Py_ssize_t i
        for i in range(self.count):
            yield self.at(i)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Named, list)):
            return NotImplemented
        return list(self) == list(other)

    def __repr__(self) -> str:
        return f"Named({list(self)})"


cdef Named named(object regions):
    """Return regions that may also be a list of tuples."""
    cdef Named table
    cdef Region* region
    cdef Py_ssize_t at = 0
    if isinstance(regions, Named):
        return regions
    listed = list(regions)
    table = Named()
    table.allocate(b"".join([item[3] for item in listed]), len(listed))
    for i, (address, length, device, key) in enumerate(listed):
        region = &table.regions[<Py_ssize_t>i]
        region.address, region.length, region.device = address, length, device
        region.key, region.key_size = at, len(key)
        at += len(key)
    return table


# --- in order -------------------------------------------------------------------------------------


cdef int _compare(const Region* a, const Region* b) noexcept nogil:
    """Order by device, start and length."""
    if a.device != b.device:
        return -1 if a.device < b.device else 1
    if a.address != b.address:
        return -1 if a.address < b.address else 1
    if a.length != b.length:
        return -1 if a.length < b.length else 1
    return 0


cdef int _compare_places(const void* a, const void* b) noexcept nogil:
    return _compare((<const Region**>a)[0], (<const Region**>b)[0])


cdef Region** _sorted(Named table) except NULL:
    """Return the regions in order; free it."""
    cdef Py_ssize_t i
    cdef bint rising = True
    cdef Region** order = <Region**>malloc(max(table.count, 1) * sizeof(Region*))
    if order is NULL:
        raise MemoryError
    with nogil:
        for i in range(table.count):
            order[i] = &table.regions[i]
            if i and _compare(order[i - 1], order[i]) > 0:
                rising = False
        if not rising:  # which most lists are
            qsort(order, table.count, sizeof(Region*), _compare_places)
    return order


def contradicts(regions: list[tuple[int, int, int, bytes]] | Named) -> bool:
    """Whether one region is named under two keys."""
    cdef Named table = named(regions)
    cdef const char* text = table.text
    cdef Region** order
    cdef Py_ssize_t i
    cdef bint found = False
    if table.count < 2:
        return False
    order = _sorted(table)
    with nogil:
        for i in range(1, table.count):
            if _compare(order[i - 1], order[i]) == 0 and (
                order[i - 1].key_size != order[i].key_size
                or memcmp(text + order[i - 1].key, text + order[i].key, order[i].key_size)
            ):
                found = True
                break
    free(order)
    return found


def keys_of(regions: list[tuple[int, int, int, bytes]] | Named) -> dict[int, set[bytes]]:
    """Return the keys, by device."""
    cdef Named table = named(regions)
    cdef const char* text = table.text
    cdef Region* region
    cdef Region* last = NULL
    cdef Py_ssize_t i
    found = {}
    for i in range(table.count):
        region = &table.regions[i]
        if last is NULL or (
            region.device != last.device or region.key_size != last.key_size
            or memcmp(text + region.key, text + last.key, region.key_size)
        ):
            last = region
            found.setdefault(region.device, set()).add(table.key(i))
    return found


# --- who holds what -------------------------------------------------------------------------------


cdef bint _holds(const Region* region, const uint64_t* row) noexcept nogil:
    return (
        region.device == row[2] and region.address <= row[0] and row[1] <= region.length
        and row[0] - region.address <= region.length - row[1]
    )


cdef uint64_t _end(const Region* region) noexcept nogil:
    return region.address + min(region.length, UINT64_MAX - region.address)


cdef class Holders:
    """Finds which of some regions holds a row, at the next one first: most lists agree in order."""

    def __cinit__(self, regions: object):
        self.regions = named(regions)

    def __dealloc__(self):
        free(self.order)
        free(self.reaching)

    cdef Py_ssize_t of(self, const uint64_t* row) except -2:
        """Return the index of a region that holds a row, or -1."""
        cdef Py_ssize_t i
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.regions.count
        cdef Region* region
        for i in range(self.next, min(self.next + 2, high)):
            if _holds(&self.regions.regions[i], row):
                self.next = i
                return i
        if self.order is NULL:
            self.sort()
        while low < high:  # for how many start no later on this device, or are of an earlier one
            i = (low + high) // 2
            region = self.order[i]
            if region.device < row[2] or (region.device == row[2] and region.address <= row[0]):
                low = i + 1
            else:
                high = i
        if low and _holds(self.reaching[low - 1], row):
            return self.reaching[low - 1] - self.regions.regions
        return -1

    cdef int sort(self) except -1:
        cdef Py_ssize_t i
        cdef Py_ssize_t count = self.regions.count
        if self.reaching is NULL:
            self.reaching = <Region**>malloc(max(count, 1) * sizeof(Region*))
            if self.reaching is NULL:
                raise MemoryError
        self.order = _sorted(self.regions)
        for i in range(count):
            self.reaching[i] = self.order[i]
            if i and self.order[i - 1].device == self.order[i].device and (
                _end(self.reaching[i - 1]) > _end(self.order[i])
            ):
                self.reaching[i] = self.reaching[i - 1]
        return 0

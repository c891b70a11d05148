"""Values by address range."""

from libc.stdint cimport uint64_t

cdef struct Range:
    uint64_t start
    uint64_t end                # exclusive
    void* value

# The ranges whose lengths have as many bits, sorted by start and end.
cdef struct Class:
    Range* ranges
    Py_ssize_t count
    Py_ssize_t capacity
    int bits                    # of the lengths
    uint64_t reach              # no range of the class is longer

# All of them, in classes: those that have had ranges.
cdef struct Ranges:
    Class* classes
    int count
    int capacity

# Where a walk over the ranges that hold another one has come to; all zero at first.
cdef struct Walk:
    int group                   # from 1
    Py_ssize_t at

cdef void* find(const Ranges* ranges, uint64_t start, uint64_t end) noexcept nogil
cdef void* neighbour_of(const Ranges* ranges, uint64_t start, uint64_t end) noexcept nogil
cdef void* next_holder(
    const Ranges* ranges, Walk* walk, uint64_t start, uint64_t end
) noexcept nogil
cdef bint add_all(Ranges* ranges, const Range* fresh, Py_ssize_t count) noexcept nogil
cdef void* take_away(Ranges* ranges, uint64_t start, uint64_t end) noexcept nogil
cdef void keep_if(Ranges* ranges, bint (*wanted)(void*) noexcept nogil) noexcept nogil
cdef void clear(Ranges* ranges) noexcept nogil

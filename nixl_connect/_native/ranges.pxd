"""Values by address range."""

from libc.stdint cimport uint64_t

cdef struct Range:
    uint64_t start
    uint64_t end                # exclusive

cdef class Class:
    cdef Range* ranges          # sorted
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef int bits               # of the lengths
    cdef uint64_t reach         # no range of the class is longer
    cdef list values            # of the same order

    cdef Py_ssize_t lower_bound(self, uint64_t start, uint64_t end) noexcept nogil
    cdef Py_ssize_t last_before(self, uint64_t end) noexcept nogil
    cdef int insert(self, uint64_t start, uint64_t end, object value) except -1
    cdef void remove(self, Py_ssize_t i)

cdef class RangeMap:
    cdef list classes           # those that have had ranges

    cdef Class of_length(self, uint64_t length)
    cpdef object neighbour(self, uint64_t start, uint64_t end)
    cdef bint add_covering(self, uint64_t start, uint64_t end, list found) except -1

"""The operation state machine: one table, one writer."""

cdef enum Status:
    UNINITIALIZED = 0
    INITIALIZED = 1
    IN_PROGRESS = 2
    COMPLETE = 3
    CANCELLED = 4
    ERRORED = 5

cdef int read_status(const int* cell) noexcept nogil
cdef bint is_final(int status) noexcept nogil
cdef bint advance(int* cell, int to) noexcept nogil

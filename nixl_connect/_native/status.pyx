"""The operation state machine: one table, one writer.

`advance` is the only function in the package that writes a status. It is safe from any thread,
with or without the GIL: a compare-and-swap either makes a legal move from the state that it saw, or
makes none.
"""

from libc.stdlib cimport free, malloc

from nixl_connect._native.atomic cimport atomic_load, atomic_swap

# Row: the state that is left. Bit n of a row: state n may follow.
cdef unsigned char[6] _FOLLOWERS
_FOLLOWERS[:] = [
    (1 << INITIALIZED) | (1 << CANCELLED) | (1 << ERRORED),
    (1 << IN_PROGRESS) | (1 << COMPLETE) | (1 << CANCELLED) | (1 << ERRORED),
    (1 << COMPLETE) | (1 << CANCELLED) | (1 << ERRORED),
    0,
    0,
    0,
]


cdef int read_status(const int* cell) noexcept nogil:
    return atomic_load(cell)


cdef bint is_final(int status) noexcept nogil:
    return status >= COMPLETE


cdef bint advance(int* cell, int to) noexcept nogil:
    """Move to `to` if the table allows it; return whether this call made the move."""
    cdef int seen = atomic_load(cell)
    if to < UNINITIALIZED or to > ERRORED:
        return False
    while _FOLLOWERS[seen] & (1 << to):
        if atomic_swap(cell, &seen, to):
            return True
    return False


cdef class StatusCell:
    """One status and its single writer, as the tests see them.

    Operations embed the same cell in their native record.
    """

    cdef int* cell

    def __cinit__(self):
        self.cell = <int*>malloc(sizeof(int))
        if self.cell is NULL:
            raise MemoryError
        self.cell[0] = UNINITIALIZED

    def __dealloc__(self):
        free(self.cell)

    @property
    def value(self) -> int:
        """The current status."""
        return read_status(self.cell)

    def advance(self, int to) -> bool:
        """Move to status `to`; return False, and change nothing, where that move is illegal."""
        return advance(self.cell, to)

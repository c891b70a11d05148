"""Whether this process is still the one that made something."""

cdef int fork_generation() noexcept nogil

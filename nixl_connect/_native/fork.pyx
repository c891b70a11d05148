"""Whether this process is still the one that made something.

A forked child inherits memory, but no thread, and locks that may stay locked for ever. What must
not be used in a child remembers the generation in which it was made.
"""

from nixl_connect._native.posix cimport pthread_atfork

cdef int _generation = 0


cdef void _after_fork_in_child() noexcept nogil:
    global _generation
    _generation += 1


if pthread_atfork(NULL, NULL, _after_fork_in_child):
    raise MemoryError("pthread_atfork")


cdef int fork_generation() noexcept nogil:
    """Return how many forks lie between the first process that loaded this and this one."""
    return _generation

"""Carries completions from any thread to one event loop."""

from libc.stdint cimport uint64_t

from nixl_connect._native.posix cimport pthread_mutex_t

cdef struct WakerState:
    int refs
    int fd
    Waiter* ready
    pthread_mutex_t lock

# One wait for one operation. Owned by the operation's record until it ends, by the waker after.
cdef struct Waiter:
    Waiter* next
    WakerState* waker
    uint64_t token

cdef Waiter* new_waiter(WakerState* waker, uint64_t token) noexcept nogil
cdef void free_waiter(Waiter* waiter) noexcept nogil
cdef void wake(Waiter* waiter) noexcept nogil

cdef class Waker:
    cdef WakerState* state
    cdef int generation
    cpdef list drain(self)

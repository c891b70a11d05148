"""Carries completions from any thread to one event loop."""

from libc.stdint cimport uint64_t

from nixl_connect._native.posix cimport pthread_mutex_t

cdef struct WakerState:
    int refs
    int fd                      # an event descriptor
    int sources                 # an epoll descriptor of that and of a doorbell: the loop's reader
    Waiter* ready
    bint abandoned              # there is no loop any more: waits are dropped as they finish
    bint watched                # the loop's own thread looks at `ready`
    pthread_mutex_t lock
    int bell                    # the doorbell that `sources` has, or -1; the core's, as the next
    bint armed                  # whether its next ring wakes the loop
    size_t waits                # for passive operations

# One wait for one operation. Owned by the operation's record until it ends, by the waker after.
cdef struct Waiter:
    Waiter* next
    WakerState* waker
    uint64_t token

cdef Waiter* new_waiter(WakerState* waker, uint64_t token) noexcept nogil
cdef void free_waiter(Waiter* waiter) noexcept nogil
cdef void wake(Waiter* waiter) noexcept nogil
cdef void retain_waker(WakerState* state) noexcept nogil
cdef void release_waker(WakerState* state) noexcept nogil
cdef bint arm(WakerState* state, int bell) noexcept nogil
cdef bint was_called(WakerState* state) noexcept nogil
cdef void watch(WakerState* state) noexcept nogil
cdef bint is_ready(WakerState* state) noexcept nogil

cdef class Waker:
    cdef WakerState* state
    cdef int generation
    cdef list drain(self)

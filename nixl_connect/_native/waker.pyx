"""Carries completions from any thread to one event loop.

A waker is an event descriptor and a list of finished waits. Native threads add to the list without
the GIL; the loop, woken once per batch, takes the whole list. Waits are known by integer tokens, so
no Python object is ever touched from a native thread.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from nixl_connect._native.atomic cimport atomic_add
from nixl_connect._native.file_descriptors cimport own_close, own_eventfd
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.posix cimport (
    EFD_NONBLOCK,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    read,
    write,
)


cdef void _release(WakerState* state) noexcept nogil:
    if atomic_add(&state.refs, -1) == 0:
        own_close(state.fd)
        pthread_mutex_destroy(&state.lock)
        free(state)


cdef Waiter* new_waiter(WakerState* waker, uint64_t token) noexcept nogil:
    """Return a wait that holds a reference to `waker`, or NULL when out of memory."""
    cdef Waiter* waiter = <Waiter*>malloc(sizeof(Waiter))
    if waiter is not NULL:
        atomic_add(&waker.refs, 1)
        waiter.next = NULL
        waiter.waker = waker
        waiter.token = token
    return waiter


cdef void free_waiter(Waiter* waiter) noexcept nogil:
    _release(waiter.waker)
    free(waiter)


cdef void wake(Waiter* waiter) noexcept nogil:
    """Hand a finished wait to its loop. Takes ownership; allocates nothing, so it cannot fail."""
    cdef WakerState* state = waiter.waker
    cdef uint64_t one = 1
    pthread_mutex_lock(&state.lock)
    if state.ready is NULL:
        # The first of a batch. The counter cannot overflow: it is 0 or 1.
        write(state.fd, &one, 8)
    waiter.next = state.ready
    state.ready = waiter
    pthread_mutex_unlock(&state.lock)


cdef class Waker:
    """The event descriptor of one event loop, and the waits that finished since it last looked."""

    def __cinit__(self):
        self.state = <WakerState*>malloc(sizeof(WakerState))
        if self.state is NULL:
            raise MemoryError
        self.generation = fork_generation()
        self.state.refs = 1
        self.state.ready = NULL
        self.state.fd = own_eventfd(0, EFD_NONBLOCK)
        if self.state.fd < 0 or pthread_mutex_init(&self.state.lock, NULL):
            free(self.state)
            self.state = NULL
            raise OSError("eventfd: no descriptor left for the event loop's waker")

    def __dealloc__(self):
        if self.state is not NULL and self.generation == fork_generation():
            self.drain()
            _release(self.state)

    @property
    def fd(self) -> int:
        """The descriptor, readable while finished waits are to be drained."""
        return self.state.fd

    cpdef list drain(self):
        """Return the tokens of the waits that finished, in order."""
        cdef uint64_t count
        cdef Waiter* waiter
        cdef Waiter* rest
        if self.generation != fork_generation():
            return []
        pthread_mutex_lock(&self.state.lock)
        read(self.state.fd, &count, 8)
        waiter = self.state.ready
        self.state.ready = NULL
        pthread_mutex_unlock(&self.state.lock)
        tokens = []
        while waiter is not NULL:
            rest = waiter.next
            tokens.append(waiter.token)
            free_waiter(waiter)
            waiter = rest
        tokens.reverse()
        return tokens

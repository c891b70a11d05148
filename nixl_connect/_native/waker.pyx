"""Carries completions from any thread to one event loop.

A waker is an event descriptor and a list of finished waits. Native threads add to the list without
the GIL; the loop, woken once per batch, takes the whole list. Waits are known by integer tokens, so
no Python object is ever touched from a native thread.

The loop may also have a connection's doorbell: see `listening`.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from nixl_connect._native.atomic cimport atomic_add, peek_list
from nixl_connect._native.file_descriptors cimport own_close, own_epoll, own_eventfd
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.posix cimport (
    EFD_NONBLOCK,
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLONESHOT,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    read,
    write,
)


cdef void retain_waker(WakerState* state) noexcept nogil:
    atomic_add(&state.refs, 1)


cdef void release_waker(WakerState* state) noexcept nogil:
    if atomic_add(&state.refs, -1) == 0:
        own_close(state.sources)
        own_close(state.fd)
        pthread_mutex_destroy(&state.lock)
        free(state)


cdef Waiter* new_waiter(WakerState* waker, uint64_t token) noexcept nogil:
    """Return a wait that holds a reference to `waker`, or NULL when out of memory."""
    cdef Waiter* waiter = <Waiter*>malloc(sizeof(Waiter))
    if waiter is not NULL:
        retain_waker(waker)
        waiter.next = NULL
        waiter.waker = waker
        waiter.token = token
    return waiter


cdef void free_waiter(Waiter* waiter) noexcept nogil:
    release_waker(waiter.waker)
    free(waiter)


cdef void wake(Waiter* waiter) noexcept nogil:
    """Hand a finished wait to its loop. Takes ownership; allocates nothing, so it cannot fail."""
    cdef WakerState* state = waiter.waker
    cdef uint64_t one = 1
    pthread_mutex_lock(&state.lock)
    if state.abandoned:
        pthread_mutex_unlock(&state.lock)
        free_waiter(waiter)
        return
    if state.ready is NULL and not state.watched:
        # The first of a batch. The counter cannot overflow: it is 0 or 1.
        write(state.fd, &one, 8)
    waiter.next = state.ready
    state.ready = waiter
    pthread_mutex_unlock(&state.lock)


cdef bint _add(WakerState* state, int fd, unsigned int events, int operation) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.fd = fd
    return epoll_ctl(state.sources, operation, fd, &event) == 0


cdef bint arm(WakerState* state, int bell) noexcept nogil:
    """Have the next ring of a doorbell wake the loop; whether it will. The core's lock held."""
    cdef int operation = EPOLL_CTL_MOD if state.bell == bell else EPOLL_CTL_ADD
    if not state.armed:
        state.armed = _add(state, bell, EPOLLIN | EPOLLONESHOT, operation)
        if state.armed:
            state.bell = bell
    return state.armed


cdef bint was_called(WakerState* state) noexcept nogil:
    """Take what woke the loop; return whether the doorbell did. On the loop's thread."""
    cdef epoll_event[2] events
    cdef uint64_t count
    cdef bint called = False
    cdef int i
    for i in range(epoll_wait(state.sources, events, 2, 0)):
        if events[i].data.fd == state.fd:
            # Before the list is looked at: who adds to it then writes again.
            read(state.fd, &count, 8)
        else:
            called = True
    return called


cdef void watch(WakerState* state) noexcept nogil:
    """Say that the loop's thread looks by itself, until it drains. On that thread."""
    pthread_mutex_lock(&state.lock)
    state.watched = True
    pthread_mutex_unlock(&state.lock)


cdef bint is_ready(WakerState* state) noexcept nogil:
    """Whether a wait has finished, as a hint."""
    return peek_list(<void**>&state.ready) is not NULL


cdef class Waker:
    """The event descriptor of one event loop, and the waits that finished since it last looked."""

    def __cinit__(self):
        self.state = <WakerState*>malloc(sizeof(WakerState))
        if self.state is NULL:
            raise MemoryError
        self.generation = fork_generation()
        self.state.refs = 1
        self.state.ready = NULL
        self.state.abandoned = self.state.watched = self.state.armed = False
        self.state.bell = -1
        self.state.waits = 0
        self.state.fd = own_eventfd(0, EFD_NONBLOCK)
        self.state.sources = own_epoll() if self.state.fd >= 0 else -1
        if (
            self.state.sources < 0
            or not _add(self.state, self.state.fd, EPOLLIN, EPOLL_CTL_ADD)
            or pthread_mutex_init(&self.state.lock, NULL)
        ):
            if self.state.sources >= 0:
                own_close(self.state.sources)
            if self.state.fd >= 0:
                own_close(self.state.fd)
            free(self.state)
            self.state = NULL
            raise OSError("no descriptor left for the event loop's waker")

    def __dealloc__(self):
        if self.state is not NULL and self.generation == fork_generation():
            pthread_mutex_lock(&self.state.lock)
            self.state.abandoned = True
            pthread_mutex_unlock(&self.state.lock)
            self.drain()
            release_waker(self.state)

    @property
    def fd(self) -> int:
        """The descriptor, readable while there is something to take: see `Reactor.hear`."""
        return self.state.sources

    cdef list drain(self):
        """Return the tokens of the waits that finished, in order."""
        cdef Waiter* waiter
        cdef Waiter* rest
        pthread_mutex_lock(&self.state.lock)
        self.state.watched = False
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

"""What is registered with one agent: shared, counted, released by the last who needs it."""

from libc.stdint cimport int64_t, uint64_t

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.core cimport Core
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.posix cimport pthread_mutex_t
from nixl_connect._native.registration cimport Held, Registration, Told
from nixl_connect._native.shelf cimport Shelf

cdef enum:
    # Beside NIXL's own statuses.
    NOT_QUICK = -1101           # there is no patience for what it takes
    NO_MEMORY = -1102
    NOT_REGISTERED = -1103      # memory of this agent's, and not registered with it

    # Patience (nanoseconds) of those who must not wait.
    BRIEF = 1_000_000
    # And how long others wait at a stretch, before they look for signals.
    STRETCH = 50_000_000

cdef class Registry:
    cdef Agent agent
    cdef bint pins
    cdef int generation
    cdef pthread_mutex_t gate
    cdef pthread_mutex_t lock
    cdef int slow               # a hint: who has the gate has it for long
    cdef Shelf shelf            # what NIXL has
    cdef Py_ssize_t count
    cdef uint64_t nbytes
    cdef Registration* idle     # to be deregistered, unless they are needed again
    cdef Core* core             # whose reaper does so, if nobody else does; or NULL
    cdef object reactor         # keeps that alive
    cdef object report          # is told what is registered and deregistered
    cdef public bint debugging  # whether it is told all of that, or of what NIXL refuses alone
    cdef uint64_t idle_count
    cdef object __weakref__
    cdef bint enter(self, int64_t patience) noexcept nogil
    cdef void leave(self) noexcept nogil
    cdef int _make(
        self, Regions regions, int mem_type, Registration** found, Py_ssize_t missing,
        bint patient, Registration** made, Told* told
    ) noexcept nogil
    cdef int _register(
        self, Registration** fresh, Py_ssize_t count, int mem_type, bint patient, Told* told
    ) noexcept nogil
    cdef int take(
        self, Regions regions, int mem_type, Held* held, bint patient, Registration** made,
        Told* told
    ) noexcept nogil
    cdef int cover(self, Regions regions, int mem_type, Held* held) noexcept nogil
    cdef bint holds(self, Regions regions, int mem_type) noexcept nogil
    cdef void _hold(self, Registration* registration) noexcept nogil
    cdef void _queue(self, Registration* registration) noexcept nogil
    cdef void give_up(self, Held* held, bint owned) noexcept nogil
    cdef Registration* _taken_out(self) noexcept nogil
    cdef Registration* tidy(self, Told* gone, Told* kept) noexcept nogil
    cdef int _deregister(self, Registration* chain) noexcept nogil
    cdef void _keep(self, Registration* registration) noexcept nogil
    cdef bint clean(self, int64_t patience) except -1
    cdef void call(self) noexcept nogil
    cdef int fail(self, int rc, const Told* told) except -1
    cdef int say(self, const Told* gone, const Told* kept) except -1
    cdef int say_made(self, const Told* told) except -1

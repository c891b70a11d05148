"""What is registered with one agent: shared, counted, released by the last who needs it."""

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.core cimport Core
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.posix cimport pthread_mutex_t
from nixl_connect._native.ranges cimport Ranges

cdef enum:
    # Beside NIXL's own statuses.
    NOT_QUICK = -1101           # there is no patience for what it takes
    NO_MEMORY = -1102
    NOT_REGISTERED = -1103      # memory of this agent's, and not registered with it

    # Patience (nanoseconds) of those who must not wait.
    BRIEF = 1_000_000
    # And how long others wait at a stretch, before they look for signals.
    STRETCH = 50_000_000

# One region that is registered with NIXL.
cdef struct Registration:
    uint64_t[3] row             # exactly as registered: address, length, device
    int mem_type
    Py_ssize_t holders          # how many need it
    bint queued                 # in the list of those that nobody needed at some time
    bint over                   # nobody does, and nobody finds it any more
    PyObject* described         # a reference to its metadata, as peers get it, or NULL
    PyObject* owner             # a reference to what keeps the region alive, or NULL
    Py_ssize_t wanted_for       # the row for which it was made
    Registration* fresh         # the next of those that were made together
    Registration* next          # of those that are to be deregistered

# Registrations that somebody needs, each as often as it is in the list.
cdef struct Held:
    Registration** items
    Py_ssize_t count
    Py_ssize_t capacity
    (Registration*)[4] few      # most need no more

# Some regions, to be told of.
cdef struct Told:
    int status
    int mem_type
    Py_ssize_t count
    uint64_t nbytes
    uint64_t[3] first

# The registrations of one memory type and device.
cdef struct Map:
    int mem_type
    uint64_t device
    Ranges ranges

cdef class Registry:
    cdef Agent agent
    cdef bint pins
    cdef int generation
    cdef pthread_mutex_t gate
    cdef pthread_mutex_t lock
    cdef int slow               # a hint: who has the gate has it for long
    cdef Map** maps
    cdef Py_ssize_t map_count
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
    cdef Map* _map_of(self, int mem_type, uint64_t device) noexcept nogil
    cdef bint _add(self, Registration** made, Py_ssize_t count) noexcept nogil
    cdef Py_ssize_t _share(
        self, const uint64_t* rows, Py_ssize_t count, int mem_type, Held* held
    ) noexcept nogil
    cdef int _make(
        self, const uint64_t* rows, Py_ssize_t count, int mem_type, Held* held,
        Py_ssize_t missing, bint patient, Registration** made, Told* told
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
    cdef void _keep(self, Registration* registration) noexcept nogil
    cdef bint clean(self, int64_t patience) except -1
    cdef void call(self) noexcept nogil
    cdef int fail(self, int rc, const Told* told) except -1
    cdef int say(self, const Told* gone, const Told* kept) except -1
    cdef int say_made(self, const Told* told) except -1

cdef void own(Registration* made, list owners) noexcept
cdef void let_go(Registration* chain) noexcept
cdef void free_held(Held* held) noexcept nogil

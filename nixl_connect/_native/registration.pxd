"""One region that is registered with NIXL, and lists of such."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

# One region that is registered with NIXL. Its counts and lists are guarded by its registry's lock,
# the references by the GIL.
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

cdef bint have_room(Held* held, Py_ssize_t more) noexcept nogil
cdef void free_held(Held* held) noexcept nogil
cdef Py_ssize_t make_all(
    const uint64_t* rows, Py_ssize_t count, int mem_type, Registration** found,
    Registration** fresh
) noexcept nogil
cdef Registration* split_off(Registration** chain, bint one) noexcept nogil
cdef void note(Told* told, const Registration* registration) noexcept nogil
cdef tuple regions_of(const Told* told)
cdef void own(Registration* made, list owners) noexcept
cdef void let_go(Registration* chain) noexcept

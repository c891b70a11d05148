"""Registrations, found by what they hold."""

from libc.stdint cimport uint64_t

from nixl_connect._native.packing cimport Regions
from nixl_connect._native.ranges cimport Ranges
from nixl_connect._native.registration cimport Held, Registration

# The registrations of one memory type and device.
cdef struct Map:
    int mem_type
    uint64_t device
    Ranges ranges

# All of one agent.
cdef struct Shelf:
    Map** maps
    Py_ssize_t count

cdef bint put_in(Shelf* shelf, Registration** made, Py_ssize_t count) noexcept nogil
cdef void take_out(Shelf* shelf, Registration* chain, Py_ssize_t count) noexcept nogil
cdef Py_ssize_t find_all(
    const Shelf* shelf, Regions regions, int mem_type, Registration** found
) noexcept nogil
cdef int add_holders(
    const Shelf* shelf, Regions regions, int mem_type, Held* held
) noexcept nogil
cdef bint all_are_held(const Shelf* shelf, Regions regions, int mem_type) noexcept nogil
cdef Registration* emptied(Shelf* shelf) noexcept nogil

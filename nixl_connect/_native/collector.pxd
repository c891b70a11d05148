"""Lets go of what ended operations held."""

from nixl_connect._native.reactor cimport Reactor

cdef class Collector:
    cdef Reactor reactor
    cdef list registries
    cdef list unknown
    cdef double quarantine
    cdef int under_way          # threads in the middle of it, with the GIL
    cdef object is_debugging
    cdef object report
    cdef bint _is_needed(self) noexcept
    cdef int run(self, bint patient) except -1
    cdef bint _would_wait(self) noexcept
    cdef void _put_back(self, void* retired, void* quarantined) noexcept

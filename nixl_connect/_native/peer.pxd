"""A connection to a remote agent: who it is, and who is in flight."""

from nixl_connect._native.bell cimport Address
from nixl_connect._native.named cimport Named

cdef class PeerState:
    cdef readonly bytes alias
    cdef readonly bytes identity
    cdef Address bell
    cdef public bint here
    cdef public bint near
    cdef public bint itself
    cdef public bint broken
    cdef bint _busy
    cdef unsigned long _thread  # which made it busy
    cdef readonly Py_ssize_t in_flight
    cdef public double last_used
    cdef public bytes told_as
    cdef public double reliable
    cdef public int lanes_failed
    cdef set _loaded
    cdef public dict connections
    cdef public dict everywhere
    cdef bint _has_keys_of(self, object described) except -1
    cdef bint _has_keys(self, object backend, object mem_type, Named regions) except -1
    cdef bint is_ready(self)
    cdef bint knows(self, bytes blob, object described) except -1
    cdef void count_out(self) noexcept

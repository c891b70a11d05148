"""The completion thread of one agent, as Python sees it."""

from libc.stdint cimport uint64_t

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.core cimport Core
from nixl_connect._native.hold cimport Hold
from nixl_connect._native.operation cimport Operation

cdef class Reactor:
    cdef Agent agent
    cdef Agent messenger
    cdef Core* core
    cdef int generation
    cdef uint64_t last_id
    cdef bint stopped
    cpdef Operation passive(
        self, bytes key, double quarantine, bint writable, Hold hold, uint64_t transfers
    )
    cpdef Operation active(
        self, bytes peer, bytes identity, bint near, bytes key, bytes told_as, double reliable,
        double quarantine, Hold hold
    )
    cdef Operation _operation(self, bytes key, Hold hold)

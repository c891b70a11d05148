"""What one operation holds."""

from libc.stdint cimport uint64_t

from nixl_connect._native.core cimport Core
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.peer cimport PeerState
from nixl_connect._native.record cimport Record
from nixl_connect._native.registration cimport Held, Registration
from nixl_connect._native.registry cimport Registry

cdef class Hold:
    cdef Registry registry
    cdef Held held
    cdef bint is_quarantined    # `held` is of references to owners
    cdef object memory
    cdef list parts
    cdef int generation
    cdef readonly uint64_t nbytes
    cdef public PeerState peer
    cpdef object acquire(self, Regions regions, int mem_type, list owners=*, bint patient=*)
    cdef Registration* only(self) noexcept
    cdef void quarantine(self) noexcept
    cdef void end(self) noexcept
    cdef void _leave(self) noexcept

cdef void entrust(Core* core, Record* record, Hold hold) noexcept
cdef Hold taken_back(Core* core, Record* record)
cdef void end_of(Core* core, Record* record) noexcept

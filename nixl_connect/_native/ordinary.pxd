"""The ordinary call: an operation made and begun in one go."""

from libc.stdint cimport uint64_t

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.collector cimport Collector
from nixl_connect._native.hold cimport Hold
from nixl_connect._native.operation cimport Operation
from nixl_connect._native.peer cimport PeerState
from nixl_connect._native.plan cimport Local, Plan
from nixl_connect._native.reactor cimport Reactor
from nixl_connect._native.registry cimport Registry
from nixl_connect._native.used cimport UsedKeys

cdef enum:
    # Of so many texts the hashes are remembered: a power of two, far above the texts themselves.
    MOST_SEEN = 4096

cdef class Ordinary:
    cdef public bint closed
    cdef public object reference
    cdef public list lanes
    cdef Reactor reactor
    cdef Agent agent
    cdef Registry registry
    cdef Collector collector
    cdef UsedKeys used
    cdef dict peers
    cdef object read
    cdef dict texts
    cdef Py_hash_t[MOST_SEEN] seen  # of those that came last, by its lowest bits
    cdef double quarantine
    cdef uint64_t most_quarantined
    cdef uint64_t inline_bytes
    cdef uint64_t large
    cdef uint64_t shared
    cdef uint64_t piece
    cdef Py_ssize_t few
    cdef int most_failures
    cdef Py_ssize_t most
    cdef double timeout
    cdef bint sealed
    cdef bytes head
    cdef Py_ssize_t most_metadata
    cdef object is_debugging
    cdef object report
    cdef bint is_free(self) except -1
    cdef Operation offer(
        self, Local local, bytes key, double timeout, bint writable, uint64_t transfers
    )
    cdef tuple plainly(self, str text)
    cpdef tuple described(self, str text)
    cdef Plan plan(self, int kind, object metadata, Local local, double timeout, bint begins)
    cdef Operation begin(self, Plan plan)
    cdef void herald(self, PeerState peer) noexcept
    cpdef bint shares(self, Plan plan, PeerState peer) except -1
    cdef bint share(self, Operation operation, Plan plan, Hold hold) except -1

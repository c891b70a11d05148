"""One NIXL agent, safe to call from any thread."""

from nixl_connect._native.capi cimport Api
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.posix cimport pthread_mutex_t, pthread_rwlock_t

cdef enum:
    # Beside NIXL's own statuses: the agent is closed, or belongs to the parent of this process.
    AGENT_CLOSED = -1001
    AGENT_FORKED = -1002

cdef class Agent:
    cdef readonly bytes name
    cdef readonly bytes called
    cdef const Api* nixl
    cdef void* handle
    cdef list backends
    cdef dict labels            # of connections, by the peers' names
    cdef list left              # those of connections that have been taken down
    cdef int generation
    cdef public bint handed_out     # peers have been told of it
    cdef object __weakref__
    cdef pthread_rwlock_t gate
    cdef pthread_mutex_t progress
    cdef int long_calls         # atomic: how many threads keep NIXL busy for long
    cdef bint keeps_busy(self) noexcept nogil
    cdef int enter(self) noexcept nogil
    cdef void leave(self) noexcept nogil
    cpdef bytes partial_metadata(self, Regions regions, int mem_type)
    cdef void _destroy(self)
    cdef bytes _named(self, bytes metadata)
    cdef bytes _take(self, int rc, void* data, size_t size, const char* call)
    cdef int create_request(
        self, int kind, Regions local, int local_mem, Regions remote, int remote_mem,
        const char* peer, void** out
    ) noexcept nogil

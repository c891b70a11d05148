"""Lanes: agents with a thread each, for long copies."""

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.capi cimport Api
from nixl_connect._native.core cimport Core
from nixl_connect._native.posix cimport pthread_cond_t, pthread_mutex_t, pthread_t
from nixl_connect._native.record cimport Part

cdef struct LaneState:
    const Api* nixl
    pthread_mutex_t* progress   # the agent's: see agent.pyx
    Core* core                  # whom to wake; outlives the thread
    pthread_t thread
    pthread_mutex_t lock        # taken alone
    pthread_cond_t work
    Part* first                 # to be posted, in order; guarded by `lock`, as the next two
    Part* last
    bint stopping
    bint abandoned
    int* busy                   # atomic, the agent's: parts handed over and not ended, too
    Part* active                # posted; the thread's own

cdef void hand_over(Part* part) noexcept nogil

cdef class Lane:
    cdef readonly Agent agent
    cdef object reactor         # keeps `core` alive
    cdef LaneState* state
    cdef int generation
    cdef void open(self, Agent agent, object reactor, Core* core) except *
    cdef LaneState* _ended(self, bint abandon)

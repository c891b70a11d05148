"""One operation, as Python holds it."""

from libc.stdint cimport int64_t

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.core cimport Core
from nixl_connect._native.record cimport Record

cdef int64_t deadline_of(timeout) except -1

cdef class Operation:
    cdef object reactor     # keeps `core` alive
    cdef Core* core
    cdef Agent agent
    cdef list lanes         # those of its parts, kept alive
    cdef Record* record
    cdef int generation
    cdef readonly bint is_started    # handed over: the core has it
    cpdef bint listen(self, timeout: object) except -1
    cpdef object start(self, timeout: object, bint inline_post, bint large)
    cpdef object discard(self)
    cdef void _discard(self) noexcept nogil

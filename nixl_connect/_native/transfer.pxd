"""Transfers: started, cancelled, ended."""

from libc.stdint cimport int64_t

from nixl_connect._native.bell cimport Address
from nixl_connect._native.core cimport Core
from nixl_connect._native.record cimport Record

cdef enum:
    # How long (nanoseconds) whoever waits for small transfers looks at them before it sleeps: what
    # a change of threads would cost.
    LOOK = 300_000

# What a record is once it was posted: with its owner, with nobody, or in `Core.lingering`.
cdef enum:
    IN_FLIGHT = 0
    OVER = 1
    LINGERS = 2

cdef bint has_gone(Core* core, Record* record) noexcept nogil
cdef bint is_missing(Core* core, Record* record, int64_t now) noexcept nogil
cdef int begin(Core* core, Record* record) noexcept nogil
cdef int progress_of(Core* core, Record* record) noexcept nogil
cdef void release_requests(Core* core, Record* record) noexcept nogil
cdef void say_moving(Core* core, Record* record) noexcept nogil
cdef void announce(Core* core, Address bell, bint ended) noexcept nogil
cdef bint settle(Core* core, Record* record, int rc, bint queue) noexcept nogil
cdef int post(Core* core, Record* record, bint queue) noexcept nogil
cdef bint start_active(Core* core, Record* record, bint inline_post) noexcept nogil
cdef size_t let_go(Core* core, int64_t now) noexcept nogil
cdef size_t poll_active(Core* core) noexcept nogil
cdef size_t look(Core* core, int64_t until) noexcept nogil
cdef bint cancel(Core* core, Record* record, int reason) noexcept nogil

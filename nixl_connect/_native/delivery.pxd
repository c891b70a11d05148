"""What a notification says, and to which operation."""

from libc.stdint cimport int64_t

from nixl_connect._native.bell cimport Address
from nixl_connect._native.core cimport Core
from nixl_connect._native.record cimport Record

cdef bint deliver(Core* core, const char* message, size_t size) noexcept nogil
cdef void note_mover(Core* core, const char* key, size_t size, Address bell) noexcept nogil
cdef int64_t look_for_mover(Core* core, Record* record, int64_t now) noexcept nogil

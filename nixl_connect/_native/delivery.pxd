"""What a notification says, and to which operation."""

from nixl_connect._native.core cimport Core

cdef bint deliver(Core* core, const char* message, size_t size) noexcept nogil

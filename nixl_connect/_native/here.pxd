"""The agents of this process."""

from nixl_connect._native.bell cimport Address
from nixl_connect._native.core cimport Core

cdef void come(Core* core) noexcept nogil
cdef void go(Core* core) noexcept nogil
cdef bint tell_here(Address own, const char* key, size_t size) noexcept nogil

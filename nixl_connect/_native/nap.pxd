"""How the completion thread sleeps."""

from nixl_connect._native.core cimport Core

cdef bint heed(Core* core) noexcept nogil
cdef void nap(Core* core) noexcept nogil

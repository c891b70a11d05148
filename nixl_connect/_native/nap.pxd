"""How the completion thread sleeps."""

from nixl_connect._native.core cimport Core

cdef enum:
    # How long (nanoseconds) to expect more after what a ring had announced.
    AFTER = 5_000
    # How many rings of other users in a row may bring nothing.
    MOST_RINGS = 64

cdef void heed(Core* core) noexcept nogil
cdef void nap(Core* core) noexcept nogil

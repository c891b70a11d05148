"""Where the bytes of an exported buffer are."""

from cpython.buffer cimport Py_buffer

cdef bint agrees(const Py_buffer* buffer) noexcept nogil

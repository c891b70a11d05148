"""Rows of (address, length, device) and the NIXL lists that are made of them."""

from libc.stdint cimport uint64_t

from nixl_connect._native.capi cimport Api

cdef class Regions:
    cdef uint64_t* rows
    cdef readonly Py_ssize_t count
    cdef readonly uint64_t nbytes
    cdef Py_ssize_t[2] shape
    cdef Py_ssize_t[2] strides
    cdef int _allocate(self, Py_ssize_t count) except -1
    cdef int _copy(self, object source) except -1
    cdef int _validate(self) except -1
    cdef int reg_dlist(self, const Api* nixl, int mem_type, void** out) noexcept nogil
    cdef int xfer_dlist(self, const Api* nixl, int mem_type, void** out) noexcept nogil

"""Rows of (address, length, device) and the NIXL lists that are made of them."""

from libc.stdint cimport uint64_t

from nixl_connect._native.capi cimport Api

# Where blocks are: that of index i starts at `address` + i * `stride`.
cdef struct Blocks:
    uint64_t address
    uint64_t stride
    uint64_t length             # bytes of each
    uint64_t device
    uint64_t count              # of the blocks that there are

cdef class Regions:
    cdef uint64_t* rows
    cdef readonly Py_ssize_t count
    cdef readonly uint64_t nbytes
    cdef Py_ssize_t[2] shape
    cdef Py_ssize_t[2] strides
    cpdef int mismatch(self, Regions other) except -2
    cdef int _allocate(self, Py_ssize_t count) except -1
    cdef int _copy(self, object source) except -1
    cdef int _validate(self) except -1
    cdef bint _fill(
        self, const char* indices, Py_ssize_t step, int kind, const Blocks* blocks
    ) noexcept nogil
    cdef int reg_dlist(self, const Api* nixl, int mem_type, void** out) noexcept nogil
    cdef int xfer_dlist(self, const Api* nixl, int mem_type, void** out) noexcept nogil

# A table to be filled, and then validated.
cdef Regions table_of(Py_ssize_t count)

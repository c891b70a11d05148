"""Regions that a peer names, each with its key."""

from libc.stdint cimport uint64_t

cdef struct Region:
    uint64_t address
    uint64_t length
    uint64_t device
    Py_ssize_t key              # where it is in the text
    Py_ssize_t key_size

cdef class Named:
    cdef bytes text             # holds the keys
    cdef Region* regions
    cdef readonly Py_ssize_t count
    cdef int allocate(self, bytes text, Py_ssize_t count) except -1
    cdef bytes key(self, Py_ssize_t i)
    cdef tuple at(self, Py_ssize_t i)

cdef Named named(object regions)

cdef class Holders:
    cdef Named regions
    cdef Py_ssize_t next        # the one that held the last row
    cdef Region** order         # by device and start; NULL until it is needed
    cdef Region** reaching      # of each in order: who ends last of those of its device up to it
    cdef Py_ssize_t of(self, const uint64_t* row) except -2
    cdef int sort(self) except -1

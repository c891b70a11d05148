"""What an operation is about: memory of this process, and of a peer."""

from nixl_connect._native.packing cimport Regions

cdef class Local:
    cdef readonly Regions regions
    cdef readonly Regions registered
    cdef readonly int mem_type
    cdef list _memory

cdef Local local_of(Regions regions, int mem_type, list memory)

cdef class Plan:
    cdef readonly int kind
    cdef readonly Local local
    cdef readonly Regions remote
    cdef readonly int remote_mem
    cdef object _described
    cdef readonly bytes blob
    cdef readonly bytes key
    cdef readonly double timeout

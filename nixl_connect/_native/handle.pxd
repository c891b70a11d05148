"""What a program holds of an operation, as far as it is native."""

from libc.stdint cimport uint64_t

from nixl_connect._native.hold cimport Hold
from nixl_connect._native.operation cimport Operation
from nixl_connect._native.ordinary cimport Ordinary
from nixl_connect._native.plan cimport Local, Plan

cdef class Handle:
    cdef Ordinary ordinary
    cdef readonly object _connection
    cdef public Operation _native
    cdef public bint _released
    cdef readonly double _timeout
    cdef public list _items
    cdef public list _descriptors
    cdef public Local _local
    cdef int take(self, object connection, object given, object timeout, bint written) except -1

cdef class Offer(Handle):
    cdef bint written
    cdef readonly uint64_t _transfers
    cdef public Hold _hold
    cdef public str _notification_key
    cdef public bytes _stream
    cdef public object _told
    cdef public object _told_in_hex
    cdef bint begin(self) except -1

cdef class Transfer(Handle):
    cdef readonly Plan _plan
    cdef bint begin(self) except -1

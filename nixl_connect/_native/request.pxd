"""Builds the requests of a transfer."""

from nixl_connect._native.hold cimport Hold
from nixl_connect._native.lane cimport Lane
from nixl_connect._native.operation cimport Operation
from nixl_connect._native.packing cimport Regions

cdef int add(
    Operation operation, Hold hold, Lane its, bytes peer, int kind, Regions local, int local_mem,
    Regions remote, int remote_mem, Regions registered, list owners, bint within, bint patient
) except -1

"""A region of memory, as native code reads it."""

from libc.stdint cimport uint64_t

from nixl_connect._native.packing cimport Regions

cdef class Span:
    cdef object __weakref__
    cdef uint64_t address
    cdef uint64_t whole             # bytes of the memory
    cdef uint64_t length            # bytes of it that are meant: a pool may have shrunk it
    cdef uint64_t number            # of the device among those of its kind
    cdef int kind                   # of the device, as DeviceKind
    cdef int mem_type               # NIXL's number of it
    cdef bint readonly
    cdef bint bare                  # nobody vouches for it: an address is all that is known
    cdef readonly object _device    # None for the host
    cdef readonly object _reference
    cdef readonly object _hold
    cdef readonly object _stream
    cdef public object _metadata    # as peers are told; None until somebody asks
    cdef public object _registration  # a Hold, which ends with this
    cdef public object _connection  # where `_registration` is
    cdef public object _last_used   # a weak reference to the connection of the last operation
    cdef bint take_buffer(self, object data) except -1

cdef tuple taken(object given, Py_ssize_t limit, bint written, object used)
cdef bint unchanged(list items, Regions rows) except -1
cpdef bint have_streams(list items) except -1

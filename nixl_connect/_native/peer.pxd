"""Who is in flight to a peer."""

cdef class PeerState:
    cdef bint _busy
    cdef unsigned long _thread  # which made it busy
    cdef public bint broken
    cdef readonly Py_ssize_t in_flight
    cdef public double last_used
    cdef void count_out(self) noexcept

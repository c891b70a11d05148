"""Which notification keys a connection has used."""

cdef class UsedKeys:
    cdef set latest
    cdef set older
    cpdef bint claim(self, bytes key) except -1
    cpdef object give_back(self, bytes key)

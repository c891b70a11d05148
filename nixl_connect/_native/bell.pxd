"""The doorbell: how peers on one host say "look now"."""

from libc.stdint cimport uint64_t

# A peer's doorbell, by the identity of its agent.
cdef struct Address:
    uint64_t a
    uint64_t b

# Who rang.
cdef enum Ring:
    NOBODY
    OTHERS                      # users of this host
    OWN                         # this process's user

cdef struct Rung:
    Ring who
    int process                 # of this process's user: the last that rang
    bint several                # whether more than one did
    bint announced              # whether something is still to come

cdef Address address_of(bytes identity) except *
cdef int open_bell(Address address) noexcept nogil
cdef bint ring(int fd, Address address, bint ended) noexcept nogil
cdef bint stands(int fd, Address address) noexcept nogil
cdef Rung was_rung(int fd) noexcept nogil

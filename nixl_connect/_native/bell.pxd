"""The doorbell: how peers on one host say "look now", and tell each other what has ended."""

from libc.stdint cimport uint64_t

# A peer's doorbell, by the identity of its agent.
cdef struct Address:
    uint64_t a
    uint64_t b

cdef enum:
    ROOM = 512                  # bytes of the longest datagram

# What the first byte of a datagram says.
cdef enum Said:
    BEGINS = 0
    ENDED = 1                   # and NIXL has a notification of it
    TOLD = 2                    # with this key
    MOVES = 3                   # of a transfer that takes long: who makes it, and its key

# What became of a datagram.
cdef enum Heard:
    HEARD
    FULL                        # the doorbell is there, but has no room
    NOBODY_THERE                # it is not there
    UNSAID                      # nothing is known

cdef struct Ring:
    Said said
    int process                 # which sent it, if it is of this process's user; else -1
    Address mover               # where that was said
    char* key                   # what was told, in `text`
    size_t key_size             # 0 for nothing
    char[ROOM] text

cdef Address address_of(bytes identity) except *
cdef int open_bell(Address address, bint* named) noexcept nogil
cdef void ring(int fd, Address address, bint ended) noexcept nogil
cdef Heard tell(int fd, Address address, const char* key, size_t size) noexcept nogil
cdef Heard tell_mover(
    int fd, Address address, Address own, const char* key, size_t size
) noexcept nogil
cdef bint stands(int fd, Address address) noexcept nogil
cdef bint vanished(int fd, Address address) noexcept nogil
cdef bint take_ring(int fd, Ring* ring) noexcept nogil

"""The file descriptors that no other process may have: NIXL's, UCX's, and this package's."""

from libc.stdint cimport int64_t, uint64_t

cdef int own_socket(int domain, int type, int protocol) noexcept nogil
cdef int own_eventfd(unsigned int initial, int flags) noexcept nogil
cdef int own_epoll() noexcept nogil
cdef int own_close(int fd) noexcept nogil
cdef uint64_t next_label() noexcept nogil
cdef void label_from_here(uint64_t label) noexcept nogil
cdef int hang_up(uint64_t label, int64_t quiet) noexcept nogil
cdef void* replacement_of(const char* function) noexcept nogil

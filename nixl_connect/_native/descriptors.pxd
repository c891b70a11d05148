"""The file descriptors that no other process may have: NIXL's, UCX's, and this package's."""

cdef int own_socket(int domain, int type, int protocol) noexcept nogil
cdef int own_eventfd(unsigned int initial, int flags) noexcept nogil
cdef int own_close(int fd) noexcept nogil
cdef void* replacement_of(const char* function) noexcept nogil

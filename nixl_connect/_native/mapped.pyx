"""Whether memory is there: asked of the kernel, which looks at its maps and not at the pages.

The interpreter's lock is kept: to give it away, and wait for it, would take longer than the calls.
"""

from libc.errno cimport ENOMEM, errno
from libc.stdint cimport uintptr_t

cdef extern from "<unistd.h>" nogil:
    long sysconf(int name)
    int _SC_PAGESIZE

cdef extern from "<sys/mman.h>" nogil:
    int MS_ASYNC
    int msync(void* address, size_t length, int flags)
    int madvise(void* address, size_t length, int advice)

cdef extern from *:
    """
    #ifndef MADV_POPULATE_READ  /* of Linux 5.14 */
    #define MADV_POPULATE_READ 22
    #define MADV_POPULATE_WRITE 23
    #endif
    """
    int MADV_POPULATE_READ
    int MADV_POPULATE_WRITE

cdef uintptr_t _page = sysconf(_SC_PAGESIZE)


cpdef bint is_mapped(uintptr_t address, size_t size) noexcept:
    """Whether each byte has a mapping, of whatever protection.

    For files `MS_ASYNC` does nothing on Linux but look for the mappings.
    """
    cdef uintptr_t start = address & ~(_page - 1)
    return msync(<void*>start, address + size - start, MS_ASYNC) == 0 or errno != ENOMEM


cpdef bint is_accessible(uintptr_t address, bint written) noexcept:
    """Whether the page of an address can be read, or written to; it is then in memory.

    False, too, where the kernel is too old to say, and for what is no ordinary memory.
    """
    cdef uintptr_t start = address & ~(_page - 1)
    cdef int advice = MADV_POPULATE_WRITE if written else MADV_POPULATE_READ
    return madvise(<void*>start, _page, advice) == 0

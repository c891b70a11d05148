"""The agents of this process: what one of them tells another needs no message.

The list is guarded by a lock of its own, which is taken before a core's and under which no core is
freed: nobody takes it with a core's lock held. A forked child has no agents, and does not look.
"""

from libc.string cimport memcmp

from nixl_connect._native.bell cimport Address
from nixl_connect._native.delivery cimport deliver
from nixl_connect._native.posix cimport pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock

cdef extern from *:
    """
    static pthread_mutex_t nc_here = PTHREAD_MUTEX_INITIALIZER;
    """
    pthread_mutex_t lock "nc_here"

cdef Core* cores = NULL


cdef void come(Core* core) noexcept nogil:
    """Have a core be found, until it leaves."""
    global cores
    pthread_mutex_lock(&lock)
    core.beside = cores
    cores = core
    pthread_mutex_unlock(&lock)


cdef void go(Core* core) noexcept nogil:
    """Have it be found no more. Its lock not held."""
    global cores
    pthread_mutex_lock(&lock)
    cdef Core** link = &cores
    while link[0] is not NULL and link[0] != core:
        link = &link[0].beside
    if link[0] is not NULL:
        link[0] = core.beside
    pthread_mutex_unlock(&lock)


cdef bint tell_here(Address own, const char* key, size_t size) noexcept nogil:
    """Tell an agent of the transfer with this key, if it is of this process; whether it is."""
    pthread_mutex_lock(&lock)
    cdef Core* core = cores
    while core is not NULL and memcmp(&core.own, &own, sizeof(Address)):
        core = core.beside
    if core is not NULL:
        pthread_mutex_lock(&core.lock)
        if deliver(core, key, size):
            core.heard = True  # at once
            core.direct += 1
        pthread_mutex_unlock(&core.lock)
    pthread_mutex_unlock(&lock)
    return core is not NULL

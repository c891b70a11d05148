"""Long copies between processes, by threads that let others have the processor in between.

UCX copies between processes piece by piece, each in one system call, for as long as it takes. A
kernel that lets nobody interrupt a thread before its next tick has whoever wakes meanwhile wait for
that, 4 ms where there are 250 ticks a second: event loops, where all processors copy. So UCX's
calls are led here by `redirect`, and a lane's thread yields between two pieces, now and then.

Nothing is shared: each thread has a word of its own.
"""

from libc.stdint cimport int64_t
from libc.string cimport strcmp

from nixl_connect._native.posix cimport now_ns

cdef extern from *:
    """
    #include <sched.h>
    #include <sys/types.h>
    #include <sys/uio.h>

    /* These are declared with _GNU_SOURCE only, which Python's headers may come too late for. */
    extern ssize_t process_vm_readv(pid_t, const struct iovec*, unsigned long, const struct iovec*,
                                    unsigned long, unsigned long);
    extern ssize_t process_vm_writev(pid_t, const struct iovec*, unsigned long, const struct iovec*,
                                     unsigned long, unsigned long);

    /* When this thread's turn began, in monotonic nanoseconds; 0 where it does not give way. */
    static __thread int64_t nc_turn = 0;
    #define NC_SET_TURN(when) (nc_turn = (when))
    """
    ctypedef int pid_t
    struct iovec:
        pass
    Py_ssize_t process_vm_readv(
        pid_t peer, const iovec* here, unsigned long count, const iovec* there,
        unsigned long there_count, unsigned long flags
    ) nogil
    Py_ssize_t process_vm_writev(
        pid_t peer, const iovec* here, unsigned long count, const iovec* there,
        unsigned long there_count, unsigned long flags
    ) nogil
    int sched_yield() nogil
    int64_t turn "nc_turn"
    void set_turn "NC_SET_TURN"(int64_t when) nogil

cdef enum:
    # After so many nanoseconds a thread yields; a piece, of half a MiB, takes a tenth.
    TURN = 500_000


cdef void take_turn() noexcept nogil:
    """Have this thread yield between two copies, from here on; it has just come up."""
    set_turn(now_ns())


cdef inline void _yield() noexcept nogil:
    """Yield, if this thread has had its turn."""
    if turn and now_ns() - turn >= TURN:
        sched_yield()
        take_turn()


# What UCX calls.


cdef Py_ssize_t _readv(
    pid_t peer, const iovec* here, unsigned long count, const iovec* there,
    unsigned long there_count, unsigned long flags
) noexcept nogil:
    _yield()
    return process_vm_readv(peer, here, count, there, there_count, flags)


cdef Py_ssize_t _writev(
    pid_t peer, const iovec* here, unsigned long count, const iovec* there,
    unsigned long there_count, unsigned long flags
) noexcept nogil:
    _yield()
    return process_vm_writev(peer, here, count, there, there_count, flags)


cdef void* replacement_of(const char* function) noexcept nogil:
    """Return what NIXL's and UCX's calls of a function of the C library are to lead to, or NULL."""
    if strcmp(function, b"process_vm_readv") == 0:
        return <void*>_readv
    if strcmp(function, b"process_vm_writev") == 0:
        return <void*>_writev
    return NULL

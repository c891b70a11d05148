"""The file descriptors that no other process may have: NIXL's, UCX's, and this package's.

A socket lives as long as anybody has it. UCX's are handed down to children, and while a child of
any kind lives, peers are not told that this process is gone. So what is opened here is closed by
every exec, and noted; in a forked child each one that is noted is replaced by /dev/null, under its
number: what UCX still does with it there, at exit for instance, reaches neither a peer nor what
somebody else has opened.

NIXL's and UCX's calls are led here by `redirect`. Nobody else's are: descriptors that others open,
before, meanwhile or after, are handed down as ever. So are the shared segments that UCX maps: exec
closes them anyway, and a forked child has them in its memory.

`_lock` is held from before a descriptor is there until it is noted, and while it is closed. A fork
takes it too, so that no child comes in between. It is taken last of all, and nothing that is done
with it waits for anybody. A number may still be closed by somebody whose calls are not led here,
and given out again, so a note says which file it was.

In the child everything up to the end of `_replace` is safe after a fork: system calls alone.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset, strcmp

from nixl_connect._native.posix cimport (
    EFD_CLOEXEC,
    SOCK_CLOEXEC,
    close,
    eventfd,
    now_ns,
    pthread_atfork,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    sockaddr,
    socket,
)

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/tcp.h>
    #include <netinet/in.h>
    #include <stddef.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/inotify.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/timerfd.h>
    #include <unistd.h>

    /* These are declared with _GNU_SOURCE only, which Python's headers may come too late for. */
    extern int accept4(int, struct sockaddr*, socklen_t*, int);
    extern int pipe2(int[2], int);
    extern int dup3(int, int, int);

    static __thread uint64_t nc_label = 0;
    #define NC_SET_LABEL(label) (nc_label = (label))

    /* How many bytes have gone over a TCP connection, either way; -1 for what is none, -2 while
       some are under way. */
    static inline int64_t nc_traffic(int fd) {
        struct tcp_info seen;
        socklen_t size = sizeof seen;
        memset(&seen, 0, sizeof seen);
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &seen, &size)) return -1;
        if (size < offsetof(struct tcp_info, tcpi_min_rtt)) return -1;
        if (seen.tcpi_unacked || seen.tcpi_notsent_bytes) return -2;
        return (int64_t)(seen.tcpi_bytes_acked + seen.tcpi_bytes_received);
    }

    /* Which file a descriptor is of; -1 without one. Leaves errno alone. */
    static inline int nc_identify(int fd, uint64_t* device, uint64_t* inode) {
        struct stat seen;
        int before = errno;
        int rc = (int)syscall(SYS_fstat, fd, &seen);  /* glibc's is by another name before 2.33 */
        errno = before;
        if (rc == 0) {
            *device = (uint64_t)seen.st_dev;
            *inode = (uint64_t)seen.st_ino;
        }
        return rc;
    }
    """
    uint64_t current_label "nc_label"
    void set_label "NC_SET_LABEL"(uint64_t label) nogil
    int64_t traffic_of "nc_traffic"(int fd) nogil
    int c_shutdown "shutdown"(int fd, int how) nogil
    int SHUT_RDWR
    int identify "nc_identify"(int fd, uint64_t* device, uint64_t* inode) nogil
    int accept4(int fd, sockaddr*, unsigned int* size, int flags) nogil
    int pipe2(int* ends, int flags) nogil
    int dup3(int fd, int number, int flags) nogil
    int O_RDWR
    int O_CLOEXEC
    int O_NONBLOCK
    int F_GETFL
    int EPOLL_CLOEXEC
    int IN_CLOEXEC
    int TFD_CLOEXEC
    int c_open "open"(const char* path, int flags, ...) nogil
    int c_openat "openat"(int folder, const char* path, int flags, ...) nogil
    int c_fcntl "fcntl"(int fd, int command, ...) nogil
    int c_epoll_create1 "epoll_create1"(int flags) nogil
    int c_inotify_init1 "inotify_init1"(int flags) nogil
    int c_timerfd_create "timerfd_create"(int clock, int flags) nogil
    int c_socketpair "socketpair"(int domain, int type, int protocol, int* ends) nogil

# What is noted of a number.
cdef struct Note:
    bint owned
    uint64_t device
    uint64_t inode
    uint64_t label              # what its thread was at; 0 for nothing in particular
    int64_t traffic             # see `hang_up`: how many bytes there have been
    int64_t since               # and when that was seen first

cdef struct Replacement:
    const char* function
    void* by

cdef enum:
    FIRST_SIZE = 256            # of the table; then it doubles

cdef pthread_mutex_t _lock
cdef Note* _notes = NULL        # by number
cdef int _size = 0


cdef int _note(int fd) noexcept nogil:
    """Note a descriptor, if it is one, and return it. Lock held."""
    global _notes, _size
    cdef int size
    cdef Note* notes
    if fd < 0:
        return fd
    if fd >= _size:
        size = max(_size, <int>FIRST_SIZE)
        while size <= fd:
            size *= 2
        notes = <Note*>realloc(_notes, size * sizeof(Note))
        if notes is NULL:
            return fd  # not noted, but closed by every exec all the same
        memset(notes + _size, 0, (size - _size) * sizeof(Note))
        _notes = notes
        _size = size
    _notes[fd].label = 0
    _notes[fd].traffic = -1
    _notes[fd].owned = identify(fd, &_notes[fd].device, &_notes[fd].inode) == 0
    return fd


# What NIXL and UCX call, and do not know better: each closes by exec what it opens, and notes it.


cdef int own_socket(int domain, int type, int protocol) noexcept nogil:
    pthread_mutex_lock(&_lock)
    cdef int fd = _note(socket(domain, type | SOCK_CLOEXEC, protocol))
    if 0 <= fd < _size:
        _notes[fd].label = current_label
    pthread_mutex_unlock(&_lock)
    return fd


cdef int own_eventfd(unsigned int initial, int flags) noexcept nogil:
    pthread_mutex_lock(&_lock)
    cdef int fd = _note(eventfd(initial, flags | EFD_CLOEXEC))
    pthread_mutex_unlock(&_lock)
    return fd


cdef int own_epoll() noexcept nogil:
    return _epoll_create1(0)


cdef int own_close(int fd) noexcept nogil:
    cdef int rc
    pthread_mutex_lock(&_lock)
    if 0 <= fd < _size:
        _notes[fd].owned = False
    rc = close(fd)
    pthread_mutex_unlock(&_lock)
    return rc


cdef int _socketpair(int domain, int type, int protocol, int* ends) noexcept nogil:
    cdef int rc
    pthread_mutex_lock(&_lock)
    rc = c_socketpair(domain, type | SOCK_CLOEXEC, protocol, ends)
    if rc == 0:
        _note(ends[0])
        _note(ends[1])
    pthread_mutex_unlock(&_lock)
    return rc


cdef int _accept4(int fd, sockaddr* peer, unsigned int* size, int flags) noexcept nogil:
    cdef int accepted = c_fcntl(fd, F_GETFL)
    # One that waits for somebody to connect must not hold up forks.
    cdef bint waits = accepted >= 0 and not accepted & O_NONBLOCK
    if waits:
        accepted = accept4(fd, peer, size, flags | SOCK_CLOEXEC)
    pthread_mutex_lock(&_lock)
    if not waits:
        accepted = accept4(fd, peer, size, flags | SOCK_CLOEXEC)
    _note(accepted)
    pthread_mutex_unlock(&_lock)
    return accepted


cdef int _accept(int fd, sockaddr* peer, unsigned int* size) noexcept nogil:
    return _accept4(fd, peer, size, 0)


cdef int _epoll_create1(int flags) noexcept nogil:
    pthread_mutex_lock(&_lock)
    cdef int fd = _note(c_epoll_create1(flags | EPOLL_CLOEXEC))
    pthread_mutex_unlock(&_lock)
    return fd


cdef int _epoll_create(int size) noexcept nogil:
    return _epoll_create1(0 if size > 0 else -1)  # the kernel refuses both


cdef int _timerfd_create(int clock, int flags) noexcept nogil:
    pthread_mutex_lock(&_lock)
    cdef int fd = _note(c_timerfd_create(clock, flags | TFD_CLOEXEC))
    pthread_mutex_unlock(&_lock)
    return fd


cdef int _inotify_init1(int flags) noexcept nogil:
    pthread_mutex_lock(&_lock)
    cdef int fd = _note(c_inotify_init1(flags | IN_CLOEXEC))
    pthread_mutex_unlock(&_lock)
    return fd


cdef int _pipe2(int* ends, int flags) noexcept nogil:
    cdef int rc
    pthread_mutex_lock(&_lock)
    rc = pipe2(ends, flags | O_CLOEXEC)
    if rc == 0:
        _note(ends[0])
        _note(ends[1])
    pthread_mutex_unlock(&_lock)
    return rc


cdef int _pipe(int* ends) noexcept nogil:
    return _pipe2(ends, 0)


# In C the next two take the mode only where they may create. On the machines that `redirect` knows
# it is passed like any other, and nobody looks at one that is not there. Names that end in 64 mean
# the same there.


# A file may take long to open, and forks must not wait for it: a child that comes before it is
# noted has it, which tells peers nothing.


cdef int _open(const char* path, int flags, unsigned int mode) noexcept nogil:
    cdef int fd = c_open(path, flags | O_CLOEXEC, mode)
    pthread_mutex_lock(&_lock)
    _note(fd)
    pthread_mutex_unlock(&_lock)
    return fd


cdef int _openat(int folder, const char* path, int flags, unsigned int mode) noexcept nogil:
    cdef int fd = c_openat(folder, path, flags | O_CLOEXEC, mode)
    pthread_mutex_lock(&_lock)
    _note(fd)
    pthread_mutex_unlock(&_lock)
    return fd


cdef enum:
    REPLACED = 16

cdef Replacement[REPLACED] _replacements
_replacements = [
    Replacement(b"accept", <void*>_accept),
    Replacement(b"accept4", <void*>_accept4),
    Replacement(b"close", <void*>own_close),
    Replacement(b"epoll_create", <void*>_epoll_create),
    Replacement(b"epoll_create1", <void*>_epoll_create1),
    Replacement(b"eventfd", <void*>own_eventfd),
    Replacement(b"inotify_init1", <void*>_inotify_init1),
    Replacement(b"open", <void*>_open),
    Replacement(b"open64", <void*>_open),
    Replacement(b"openat", <void*>_openat),
    Replacement(b"openat64", <void*>_openat),
    Replacement(b"pipe", <void*>_pipe),
    Replacement(b"pipe2", <void*>_pipe2),
    Replacement(b"socket", <void*>own_socket),
    Replacement(b"socketpair", <void*>_socketpair),
    Replacement(b"timerfd_create", <void*>_timerfd_create),
]


cdef void* replacement_of(const char* function) noexcept nogil:
    """Return what NIXL's and UCX's calls of a function of the C library are to lead to, or NULL."""
    cdef int i
    for i in range(REPLACED):
        if strcmp(function, _replacements[i].function) == 0:
            return _replacements[i].by
    return NULL


# Connections that UCX has closed on this side only.

cdef uint64_t _labels = 0


cdef uint64_t next_label() noexcept nogil:
    """Return a label that was not given before."""
    global _labels
    cdef uint64_t label
    pthread_mutex_lock(&_lock)
    _labels += 1
    label = _labels
    pthread_mutex_unlock(&_lock)
    return label


cdef void label_from_here(uint64_t label) noexcept nogil:
    """Have what NIXL and UCX open on this thread from here on bear a label; 0 for none."""
    set_label(label)


cdef int hang_up(uint64_t label, int64_t quiet) noexcept nogil:
    """Shut down the TCP connections with a label that have been quiet since an earlier call.

    UCX keeps the socket of a connection that was closed here for the peer's way back, and the peer
    keeps its end: each for the other. When one is shut down, both are closed. Where the peer uses
    it for transfers of its own, it is not quiet; if it only might, it finds it closed before it
    begins one.

    Parameters
    ----------
    label : int
        The connections'.
    quiet : int
        For how many nanoseconds.

    Returns
    -------
    int
        How many are left: to be called again.
    """
    cdef int left = 0
    cdef int fd
    cdef int64_t traffic
    cdef int64_t now = now_ns()
    pthread_mutex_lock(&_lock)
    for fd in range(_size):
        if _notes[fd].label != label or not _is_noted(fd):
            continue
        traffic = traffic_of(fd)
        if traffic == -1:
            continue
        left += 1
        if traffic == -2 or traffic != _notes[fd].traffic:
            _notes[fd].traffic = traffic
            _notes[fd].since = now
        elif now >= _notes[fd].since + quiet:
            c_shutdown(fd, SHUT_RDWR)
            _notes[fd].label = 0
            left -= 1
    pthread_mutex_unlock(&_lock)
    return left


# Forks.


cdef bint _is_noted(int fd) noexcept nogil:
    """Whether a number is still that of the file that was noted."""
    cdef uint64_t device
    cdef uint64_t inode
    return (
        _notes[fd].owned
        and identify(fd, &device, &inode) == 0
        and device == _notes[fd].device
        and inode == _notes[fd].inode
    )


cdef void _replace() noexcept nogil:
    """Replace what is noted by /dev/null, or close it where there is none. In a child alone."""
    cdef int null = c_open(b"/dev/null", O_RDWR | O_CLOEXEC)
    cdef int fd
    for fd in range(_size):
        if _is_noted(fd):
            if null < 0:
                # There may have been no number left for it: there is one now.
                close(fd)
                null = c_open(b"/dev/null", O_RDWR | O_CLOEXEC)
                if null == fd:
                    null = -1
                    _notes[fd].owned = False
                    continue
            if null >= 0:
                dup3(null, fd, O_CLOEXEC)
        _notes[fd].owned = False
    if null >= 0:
        close(null)


cdef void _before_fork() noexcept nogil:
    pthread_mutex_lock(&_lock)


cdef void _after_fork_in_parent() noexcept nogil:
    pthread_mutex_unlock(&_lock)


cdef void _after_fork_in_child() noexcept nogil:
    _replace()
    pthread_mutex_unlock(&_lock)


if pthread_mutex_init(&_lock, NULL) or pthread_atfork(
    _before_fork, _after_fork_in_parent, _after_fork_in_child
):
    raise MemoryError("pthread_atfork")


def noted() -> list[int]:
    """Return the numbers of the descriptors that a forked child would not have."""
    cdef int fd
    cdef list found = []
    cdef int size
    cdef bint owned
    pthread_mutex_lock(&_lock)
    size = _size
    pthread_mutex_unlock(&_lock)
    for fd in range(size):
        # Nothing of Python may happen under the lock: a finalizer may close a descriptor.
        pthread_mutex_lock(&_lock)
        owned = _is_noted(fd)
        pthread_mutex_unlock(&_lock)
        if owned:
            found.append(fd)
    return found

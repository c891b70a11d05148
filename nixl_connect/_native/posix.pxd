"""The parts of POSIX threads and clocks that the native layer uses."""

from libc.stdint cimport int64_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    ctypedef struct pthread_rwlock_t:
        pass
    int pthread_create(pthread_t*, const void* attributes, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
    int pthread_atfork(void (*)() noexcept nogil, void (*)() noexcept nogil,
                       void (*)() noexcept nogil)
    int pthread_mutex_init(pthread_mutex_t*, const void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_trylock(pthread_mutex_t*)
    int pthread_mutex_timedlock(pthread_mutex_t*, const timespec*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_condattr_init(pthread_condattr_t*)
    int pthread_condattr_setclock(pthread_condattr_t*, int clock)
    int pthread_condattr_destroy(pthread_condattr_t*)
    int pthread_cond_init(pthread_cond_t*, const pthread_condattr_t*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_timedwait(pthread_cond_t*, pthread_mutex_t*, const timespec*)
    int pthread_rwlock_init(pthread_rwlock_t*, const void* attributes)
    int pthread_rwlock_destroy(pthread_rwlock_t*)
    int pthread_rwlock_rdlock(pthread_rwlock_t*)
    int pthread_rwlock_wrlock(pthread_rwlock_t*)
    int pthread_rwlock_unlock(pthread_rwlock_t*)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t*)
    int pthread_sigmask(int how, const sigset_t*, sigset_t*)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec*)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void*, size_t)
    ssize_t write(int fd, const void*, size_t)
    int close(int fd)
    int usleep(unsigned int microseconds)
    int getpid()

cdef extern from *:
    """
    #include <sched.h>
    #if defined(__x86_64__)
    #define NC_PAUSE() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define NC_PAUSE() __asm__ volatile("isb")
    #else
    #define NC_PAUSE() ((void)0)
    #endif
    /* Wait about a microsecond between two looks, in favour of the other thread of this core; and
       now and then let another thread have this processor: it may be the one that is waited for. */
    static inline void nc_relax(unsigned int* turns) {
        for (int i = 0; i < 16; i++) NC_PAUSE();
        if (++*turns % 16 == 0) sched_yield();
    }
    """
    void relax "nc_relax"(unsigned int* turns) nogil

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN
    int ppoll(pollfd*, unsigned long count, const timespec*, const sigset_t*)

cdef extern from *:
    """
    #include <stddef.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #define NC_SUN_PATH offsetof(struct sockaddr_un, sun_path)
    """
    unsigned int NC_SUN_PATH

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr:
        pass
    struct sockaddr_un:
        unsigned short sun_family
        char[108] sun_path
    int AF_UNIX
    int SOCK_DGRAM
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int socket(int domain, int type, int protocol)
    int connect(int fd, const sockaddr*, unsigned int size)
    int bind(int fd, const sockaddr*, unsigned int size)
    ssize_t sendto(int fd, const void*, size_t, int flags, const sockaddr*, unsigned int size)

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_NONBLOCK
    int EFD_CLOEXEC
    int eventfd(unsigned int initial, int flags)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int EPOLLIN
    int EPOLLONESHOT
    int EPOLL_CTL_ADD
    int EPOLL_CTL_MOD
    int epoll_ctl(int epoll, int operation, int fd, epoll_event*)
    int epoll_wait(int epoll, epoll_event*, int most, int milliseconds)

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_NAME
    int PR_SET_TIMERSLACK
    int prctl(int option, ...)

cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec

cdef inline void init_monotonic(pthread_cond_t* condition) noexcept nogil:
    """Make a condition whose timed waits are by the monotonic clock."""
    cdef pthread_condattr_t attributes
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)

cdef extern from *:
    """
    #include <pthread.h>
    /* Init a mutex that others hold for less than a change of threads takes: whoever finds it taken
       looks again for some microseconds before it sleeps. */
    static inline int nc_init_brief(pthread_mutex_t* mutex) {
    #ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
        pthread_mutexattr_t attributes;
        int rc = pthread_mutexattr_init(&attributes);
        if (rc == 0) {
            pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
            rc = pthread_mutex_init(mutex, &attributes);
            pthread_mutexattr_destroy(&attributes);
        }
        return rc;
    #else
        return pthread_mutex_init(mutex, NULL);
    #endif
    }
    """
    int init_brief "nc_init_brief"(pthread_mutex_t* mutex) nogil

cdef inline void name_thread(const char* name) noexcept nogil:
    """Name this thread, and keep signals from it: they are the interpreter's threads' affair."""
    cdef sigset_t all_signals
    sigfillset(&all_signals)
    pthread_sigmask(SIG_SETMASK, &all_signals, NULL)
    prctl(PR_SET_NAME, name, 0, 0, 0)

cdef extern from *:
    """
    #include <sys/syscall.h>
    #include <unistd.h>
    /* glibc has gettid() from 2.30 on only, and wheels are built with 2.28. */
    static inline int nixl_connect_gettid(void) { return (int)syscall(SYS_gettid); }
    """
    int gettid "nixl_connect_gettid"() nogil

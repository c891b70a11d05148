"""What belongs to the whole process, and is not NIXL's or UCX's to change."""

cdef extern from *:
    """
    #include <dlfcn.h>
    #include <fenv.h>
    #include <pthread.h>
    #include <signal.h>
    #include <string.h>

    /* As it was, for nc_put_back. */
    typedef struct {
        struct sigaction actions[NSIG];
        stack_t stack;              /* where this thread's signal handlers may run */
        fenv_t arithmetic;          /* rounding, and what is done with the smallest numbers */
        sigset_t mask;
    } nc_kept;
    """
    ctypedef struct Kept "nc_kept":
        pass

cdef void keep(Kept* kept) noexcept nogil
cdef void put_back(const Kept* kept) noexcept nogil

"""What belongs to the whole process, and is not NIXL's or UCX's to change.

UCX takes SIGHUP when it is loaded, and the signals of faults where it is asked to; libraries may
set how a thread calculates; threads that they start would take the program's signals. So each call
that loads them, or starts or ends something of theirs, stands between `keep` and `put_back`, on one
thread. Meanwhile signals wait: threads that are started inherit that for good, and a signal that no
other thread takes reaches the program's own handler.

Only handlers that lie outside the interpreter are put back. What the program sets meanwhile, on its
main thread, is a handler of the interpreter's, the default or nothing at all, and stays.

UCX logs to standard output, which is the program's. What it has to say goes to standard error from
the moment it is loaded, unless the variable UCX_LOG_FILE says where.

What UCX's libraries read from the environment, they read when they are loaded. `Variable` is for
that moment. A child that is started within it inherits the variable, and native code that changes
the environment at the same time, which nobody may do while others read it, may lose its change.
"""

from nixl_connect._native.posix cimport SIG_SETMASK, pthread_sigmask, sigset_t

cdef extern from *:
    """
    #include <link.h>
    #include <stdarg.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <time.h>

    enum { NC_MOST = 16 };

    /* Signals that say what the thread itself has just done. They cannot wait. */
    static const int nc_faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};

    /* Keep signals from this thread. */
    static void nc_block(sigset_t *before)
    {
        sigset_t blocked;
        size_t i;

        sigfillset(&blocked);
        for (i = 0; i < sizeof nc_faults / sizeof *nc_faults; i++)
            sigdelset(&blocked, nc_faults[i]);
        pthread_sigmask(SIG_BLOCK, &blocked, before);
    }

    /* Whether a handler is code of a library, and which, rather than of the interpreter. */
    static int nc_is_foreign(const struct sigaction *action, Dl_info *where)
    {
        Dl_info interpreter;

        return action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN
            && dladdr((void *)action->sa_handler, where)
            && dladdr((void *)PyOS_setsig, &interpreter)
            && where->dli_fbase != interpreter.dli_fbase;
    }

    /* Have UCX give a signal back, if it is UCX: it would do so when the process ends, whatever the
       program has set by then. */
    static void nc_disable(int number, const Dl_info *where)
    {
        void *library = dlopen(where->dli_fname, RTLD_LAZY | RTLD_NOLOAD);
        void (*disable)(int);

        if (library == NULL)
            return;
        *(void **)&disable = dlsym(library, "ucs_debug_disable_signal");
        if (disable != NULL)
            disable(number);
        dlclose(library);
    }

    static void nc_put_signals_back(const nc_kept *kept)
    {
        struct sigaction now;
        Dl_info where;
        int number;

        for (number = 1; number < NSIG; number++) {
            if (sigaction(number, NULL, &now)
                || now.sa_handler == kept->actions[number].sa_handler
                || !nc_is_foreign(&now, &where))
                continue;
            nc_disable(number, &where);
            if (!sigaction(number, NULL, &now) && nc_is_foreign(&now, &where))
                sigaction(number, &kept->actions[number], NULL);
        }
    }

    /* --- what UCX logs ------------------------------------------------------------------- */

    static pthread_mutex_t nc_lock = PTHREAD_MUTEX_INITIALIZER;
    static void *nc_seen[NC_MOST];          /* where UCX's libraries of the process are */
    static int nc_seen_count;
    static const char *const *nc_levels;

    /* UCX's handler of what it logs: 0 for "no other one", 1 for "the next one too". */
    static int nc_log(const char *file, unsigned line, const char *function, int level,
                      const void *component, const char *format, va_list arguments)
    {
        char text[2048];
        struct timespec now;

        (void)file, (void)line, (void)function, (void)component;
        if (level <= 0)
            return 1;           /* the end of the process, which UCX itself sees to */
        vsnprintf(text, sizeof text, format, arguments);
        clock_gettime(CLOCK_REALTIME, &now);
        fprintf(stderr, "[%lld.%06ld] UCX  %s %s\\n", (long long)now.tv_sec, now.tv_nsec / 1000,
                nc_levels != NULL && nc_levels[level] != NULL ? nc_levels[level] : "", text);
        return 0;
    }

    struct nc_found { char paths[NC_MOST][4096]; int count; };

    /* Note a library of UCX's that was not there before. It is opened later: glibc holds a lock. */
    static int nc_find(struct dl_phdr_info *info, size_t size, void *data)
    {
        struct nc_found *found = data;
        const char *slash = strrchr(info->dlpi_name, '/');
        const char *name = slash == NULL ? info->dlpi_name : slash + 1;
        int i;

        (void)size;
        if (strncmp(name, "libucs.", 7) && strncmp(name, "libucs-", 7))
            return 0;
        for (i = 0; i < nc_seen_count; i++)
            if (nc_seen[i] == (void *)info->dlpi_addr)
                return 0;
        if (nc_seen_count == NC_MOST || strlen(info->dlpi_name) >= sizeof *found->paths)
            return 0;
        nc_seen[nc_seen_count++] = (void *)info->dlpi_addr;
        strcpy(found->paths[found->count++], info->dlpi_name);
        return 0;
    }

    /* Note UCX's libraries that have come. Those that are NIXL's log to standard error. */
    static void nc_look(int ours)
    {
        struct nc_found *found = calloc(1, sizeof *found);
        void (*push)(int (*)(const char *, unsigned, const char *, int, const void *,
                             const char *, va_list));
        void *library;

        if (found == NULL)
            return;
        pthread_mutex_lock(&nc_lock);
        dl_iterate_phdr(nc_find, found);
        pthread_mutex_unlock(&nc_lock);
        while (ours && found->count-- > 0) {
            library = dlopen(found->paths[found->count], RTLD_LAZY | RTLD_NOLOAD);
            if (library == NULL)
                continue;
            *(void **)&push = dlsym(library, "ucs_log_push_handler");
            if (push != NULL && getenv("UCX_LOG_FILE") == NULL) {
                nc_levels = dlsym(library, "ucs_log_level_names");
                push(nc_log);
            }
            dlclose(library);
        }
        free(found);
    }

    /* --- threads ------------------------------------------------------------------------- */

    static void *nc_wait(void *gate)
    {
        pthread_mutex_lock(gate);
        pthread_mutex_unlock(gate);
        return NULL;
    }

    /* Start threads, all at a time, and end them; return how many could be started. */
    static int nc_spare_threads(int count)
    {
        pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
        pthread_t threads[NC_MOST];
        sigset_t before;
        int started = 0;
        int i;

        nc_block(&before);
        pthread_mutex_lock(&gate);
        while (started < count && started < NC_MOST
               && pthread_create(&threads[started], NULL, nc_wait, &gate) == 0)
            started++;
        pthread_mutex_unlock(&gate);
        for (i = 0; i < started; i++)
            pthread_join(threads[i], NULL);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return started;
    }

    /* --- the environment ----------------------------------------------------------------- */

    /* Add a variable, NAME=value, which the caller keeps alive; return 0, or -1 without memory.

       Threads that hold no lock may be reading the environment, so its array is neither changed nor
       freed, as setenv(3) would: another one takes its place, with the variable last. It stays
       for good, as do the few bytes of it: whoever removes the variable only moves its end. The C
       library's lock of the environment cannot be had; the GIL keeps the interpreter's changes
       away. */
    static int nc_add_variable(char *assignment)
    {
        static char **added;    /* the last, for those who look for what is lost */
        size_t count = 0;

        while (environ != NULL && environ[count] != NULL)
            count++;
        added = malloc((count + 2) * sizeof *added);
        if (added == NULL)
            return -1;
        if (count)
            memcpy(added, environ, count * sizeof *added);
        added[count] = assignment;
        added[count + 1] = NULL;
        __atomic_store_n(&environ, added, __ATOMIC_RELEASE);
        return 0;
    }

    /* --- both ---------------------------------------------------------------------------- */

    static void nc_keep(nc_kept *kept)
    {
        int number;

        nc_look(0);
        nc_block(&kept->mask);
        for (number = 1; number < NSIG; number++)
            if (sigaction(number, NULL, &kept->actions[number]))
                kept->actions[number].sa_handler = SIG_DFL;     /* one that glibc keeps to itself */
        sigaltstack(NULL, &kept->stack);
        fegetenv(&kept->arithmetic);
    }

    static void nc_put_back(const nc_kept *kept)
    {
        stack_t stack;

        nc_put_signals_back(kept);
        if (!sigaltstack(NULL, &stack) && stack.ss_sp != kept->stack.ss_sp)
            sigaltstack(&kept->stack, NULL);
        fesetenv(&kept->arithmetic);
        nc_look(1);
        pthread_sigmask(SIG_SETMASK, &kept->mask, NULL);
    }
    """
    void nc_block(sigset_t* before) nogil
    void nc_keep(Kept* kept) nogil
    void nc_put_back(const Kept* kept) nogil
    int nc_spare_threads(int count) nogil
    int nc_add_variable(char* assignment)

cdef extern from "<stdlib.h>" nogil:
    char* getenv(const char* name)
    int unsetenv(const char* name)


cdef void keep(Kept* kept) noexcept nogil:
    """Note how things are, and have signals wait. To be followed by `put_back` on this thread."""
    nc_keep(kept)


cdef void put_back(const Kept* kept) noexcept nogil:
    """Undo what has been changed since `keep`, and have signals come."""
    nc_put_back(kept)


cdef class Quiet:
    """Has signals wait in a ``with`` block, and passes over the threads that are started there."""

    cdef sigset_t before

    def __enter__(self) -> None:
        nc_block(&self.before)

    def __exit__(self, *exception: object) -> None:
        pthread_sigmask(SIG_SETMASK, &self.before, NULL)


cdef class Variable:
    """Has a variable in the environment in a ``with`` block, unless it has been there before.

    Once per process and variable: each takes some memory for good. Holds the GIL where it changes
    something, as the interpreter does where it changes the environment.

    Parameters
    ----------
    name, value : bytes
        The variable, and what it is to be.
    """

    cdef bytes name
    cdef bytes assignment
    cdef bint is_set

    def __cinit__(self, bytes name not None, bytes value not None):
        self.name = name
        self.assignment = name + b"=" + value

    def __enter__(self) -> None:
        if getenv(self.name) is NULL:
            _kept.append(self.assignment)  # for who looked it up, and has a pointer to it
            if nc_add_variable(self.assignment):
                raise MemoryError("environment")
            self.is_set = True

    def __exit__(self, *exception: object) -> None:
        # What the program itself has set meanwhile stays.
        if self.is_set and getenv(self.name) == <char*>self.assignment + len(self.name) + 1:
            unsetenv(self.name)


cdef list _kept = []


def spare_threads(count: int) -> int:
    """Return how many threads the system has to spare, at most `count`, which is at most 16.

    They are started, and end again: limits of users, containers and memory, and how much of each is
    in use, cannot all be read.
    """
    cdef int most = count
    cdef int found
    with nogil:
        found = nc_spare_threads(most)
    return found

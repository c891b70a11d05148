"""What an exception that comes at any moment cannot break: a reentrant lock, and a thread's work.

Python runs signal handlers between two instructions, and so also between the call that takes a lock
and the statement that sees to its release. A ``with`` statement that enters an object of C has no
such gap. So locks that are tried, or waited for only so long, are taken by one, too; and a loop
that is to go on whatever its body raises is one of C.
"""

from nixl_connect._native.posix cimport usleep

from threading import RLock

cdef enum:
    # Between two attempts at what fails, in microseconds.
    PAUSE = 50_000


class NotQuickError(Exception):
    """What is to be done would have to wait, and may not."""


cdef class Gate:
    """A reentrant lock for ``with`` statements.

    Attributes
    ----------
    is_late : bool
        Set where `within` was too short, until somebody has got the lock; free to be set by others.
    """

    cdef readonly object lock
    cdef public bint is_late

    def __cinit__(self):
        self.lock = RLock()

    def __enter__(self) -> None:
        self.lock.acquire()
        self.is_late = False

    def __exit__(self, *exception: object) -> None:
        self.lock.release()

    def within(self, seconds: float) -> Entry:
        """Return what enters within so many seconds, or raises NotQuickError."""
        return Entry(self, seconds)

    @property
    def is_held_here(self) -> bool:
        """Whether this thread has the lock."""
        return self.lock._is_owned()

    @property
    def is_busy(self) -> bool:
        """Whether another thread has the lock."""
        if not self.lock.acquire(False):
            return True
        self.lock.release()
        return False


cdef class Entry:
    """Enters a gate in time, or not at all."""

    cdef Gate gate
    cdef double seconds

    def __cinit__(self, Gate gate not None, double seconds):
        self.gate = gate
        self.seconds = seconds

    def __enter__(self) -> None:
        self.gate.is_late = not self.gate.lock.acquire(True, self.seconds)
        if self.gate.is_late:
            raise NotQuickError

    def __exit__(self, *exception: object) -> None:
        self.gate.lock.release()


def persist(object work not None, object report not None) -> None:
    """Call something again, after a pause, until it returns.

    Whatever it raises, also what another thread has the interpreter raise here.

    Parameters
    ----------
    work : callable
        What to call.
    report : callable
        Is told what it has raised. May raise, too.
    """
    while True:
        try:
            work()
            return
        except BaseException as error:
            try:
                report(error)
            except BaseException:
                pass
        with nogil:
            usleep(PAUSE)

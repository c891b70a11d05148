"""What an exception that comes at any moment cannot break: a thread's work.

Python runs signal handlers between two instructions, and another thread may have it raise something
there. So a loop that is to go on whatever its body raises is one of C.
"""

from nixl_connect._native.posix cimport usleep

cdef enum:
    # Between two attempts at what fails, in microseconds.
    PAUSE = 50_000


class NotQuickError(Exception):
    """What is to be done would have to wait, and may not."""


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

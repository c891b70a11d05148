# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What an exception that comes at any moment cannot break: a thread's work.

Python runs signal handlers between two instructions, and another thread may have it raise something
there. So a loop that is to go on whatever its body raises is one of C.
"""

from collections.abc import Callable

class NotQuickError(Exception):
    """What is to be done would have to wait, and may not."""

def persist(work: Callable[[], None], report: Callable[[BaseException], None]) -> None:
    """Call something again, after a pause, until it returns.

    Whatever it raises, also what another thread has the interpreter raise here.

    Parameters
    ----------
    work : callable
        What to call.
    report : callable
        Is told what it has raised. May raise, too.
    """

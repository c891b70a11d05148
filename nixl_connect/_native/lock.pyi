# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What an exception that comes at any moment cannot break: a reentrant lock, and a thread's work.

Python runs signal handlers between two instructions, and so also between the call that takes a lock
and the statement that sees to its release. A ``with`` statement that enters an object of C has no
such gap. So locks that are tried, or waited for only so long, are taken by one, too; and a loop
that is to go on whatever its body raises is one of C.
"""

from collections.abc import Callable
from typing import Final

class NotQuickError(Exception):
    """What is to be done would have to wait, and may not."""

class Gate:
    """A reentrant lock for ``with`` statements.

    Attributes
    ----------
    is_late : bool
        Set where `within` was too short, until somebody has got the lock; free to be set by others.
    """

    lock: Final[object]
    is_late: bool

    def __new__(cls) -> Gate: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...
    def within(self, seconds: float) -> Entry:
        """Return what enters within so many seconds, or raises NotQuickError."""

    @property
    def is_held_here(self) -> bool:
        """Whether this thread has the lock."""

    @property
    def is_busy(self) -> bool:
        """Whether another thread has the lock."""

class Entry:
    """Enters a gate in time, or not at all."""

    def __new__(cls, gate: Gate, seconds: float) -> Entry: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...

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

# Made by "make stubs" from the .pyx file beside it: do not edit.
"""A reentrant lock that an exception of a signal handler cannot leave locked.

Python runs signal handlers between two instructions, and so also between the call that takes a lock
and the statement that sees to its release. A ``with`` statement that enters an object of C has no
such gap. So locks that are tried, or waited for only so long, are taken by one, too.
"""

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

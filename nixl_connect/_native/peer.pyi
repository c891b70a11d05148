# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Who is in flight to a peer, counted without a lock.

Each method is one step to all other threads: it holds the GIL from its beginning to its end. So the
fields that more than one thread changes are changed through methods alone.
"""

from typing import Final

class PeerState:
    """Whether transfers may begin over a connection to a peer, and how many are in flight.

    Attributes
    ----------
    busy : bool
        A thread, the one that sets this, is making it or loading more over it; others wait.
    broken : bool
        It is known to be lost, or has been given up: another is to be made. For good.
    in_flight : int
        Transfers that were let in and have not left.
    last_used : float
        When the last one left, or it was made: seconds of the monotonic clock.
    """

    busy: bool
    broken: bool
    in_flight: Final[int]
    last_used: float

    def __new__(cls, *arguments: object) -> PeerState: ...
    @property
    def is_busy_here(self) -> bool:
        """Whether this thread made it busy: it is a signal handler's, or a finalizer's, now."""

    def join(self, hold: object | None = None) -> None:
        """Count a transfer in, and note in `hold`, if there is one, that it is to leave."""

    def enter(self) -> bool:
        """Count a transfer in, if the connection stands and nothing is being loaded."""

    def claim(self) -> bool:
        """Make it busy, if it is not and nothing is in flight."""

    def leave(self, hold: object | None = None) -> None:
        """Count a transfer out: of `hold`, if there is one, and not twice."""

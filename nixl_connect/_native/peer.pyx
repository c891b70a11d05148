"""Who is in flight to a peer, counted without a lock.

Each method is one step to all other threads: it holds the GIL from its beginning to its end. So the
fields that more than one thread changes are changed through methods alone.
"""

from cpython.pythread cimport PyThread_get_thread_ident

from nixl_connect._native.posix cimport now_ns


cdef class PeerState:
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

    def __cinit__(self, *arguments: object):
        self.last_used = now_ns() / 1e9

    @property
    def busy(self) -> bool:
        return self._busy

    @busy.setter
    def busy(self, bint busy):
        self._busy = busy
        self._thread = PyThread_get_thread_ident()

    @property
    def is_busy_here(self) -> bool:
        """Whether this thread made it busy: it is a signal handler's, or a finalizer's, now."""
        return self._busy and self._thread == PyThread_get_thread_ident()

    def join(self, hold: object = None) -> None:
        """Count a transfer in, and note in `hold`, if there is one, that it is to leave."""
        if hold is not None:
            hold.peer = self
        self.in_flight += 1

    def enter(self) -> bool:
        """Count a transfer in, if the connection stands and nothing is being loaded."""
        if self._busy or self.broken:
            return False
        self.in_flight += 1
        return True

    def claim(self) -> bool:
        """Make it busy, if it is not and nothing is in flight."""
        if self._busy or self.in_flight:
            return False
        self.busy = True
        return True

    def leave(self, hold: object = None) -> None:
        """Count a transfer out: of `hold`, if there is one, and not twice."""
        if hold is not None:
            if hold.peer is not self:
                return
            hold.peer = None
        self.count_out()

    cdef void count_out(self) noexcept:
        self.last_used = now_ns() / 1e9
        self.in_flight -= 1

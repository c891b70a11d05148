"""Who is in flight to a peer, counted without a lock.

Each method is one step to all other threads: it holds the GIL from its beginning to its end. So the
fields that more than one thread changes are changed through methods alone.
"""


cdef class PeerState:
    """Whether transfers may begin to one peer, and how many are in flight.

    Attributes
    ----------
    busy : bool
        A thread is connecting it; others wait.
    broken : bool
        The connection is known to be lost, and has to be made anew.
    generation : int
        Counts disconnections: requests of an older generation are void.
    in_flight : int
        Transfers that were let in and have not left.
    """

    cdef public bint busy
    cdef public bint broken
    cdef public int generation
    cdef readonly Py_ssize_t in_flight

    def join(self) -> None:
        """Count a transfer in."""
        self.in_flight += 1

    def enter(self, int generation) -> bool:
        """Count a transfer in, if the connection is still that of `generation`."""
        if self.busy or self.broken or self.generation != generation:
            return False
        self.in_flight += 1
        return True

    def claim(self) -> bool:
        """Make it busy, if it is not and nothing is in flight."""
        if self.busy or self.in_flight:
            return False
        self.busy = True
        return True

    def leave(self) -> None:
        """Count a transfer out."""
        self.in_flight -= 1

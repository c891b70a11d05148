# Made by "make stubs" from the .pyx file beside it: do not edit.
"""A connection to a remote agent: who it is, whether it may be used, and who is in flight.

Each method is one step to all other threads: it holds the GIL from its beginning to its end. So the
fields that more than one thread changes are changed through methods alone.
"""

from typing import Final

from nixl_connect._native.envelope import Envelope

class PeerState:
    """What an ordinary transfer needs to know of a connection to a peer.

    Parameters
    ----------
    alias : bytes
        What NIXL calls it here.
    identity : bytes
        Which agent it is, see `identity`.

    Attributes
    ----------
    itself : bool
        Whether it is the agent itself, with which there is no connection.
    here : bool
        Whether it is an agent of this process.
    near : bool
        Whether it had its doorbell on this host when it was connected: as long as that is there, it
        is who it was.
    busy : bool
        A thread, the one that sets this, is making it or loading more over it; others wait.
    broken : bool
        It is known to be lost, or has been given up: another is to be made. For good.
    in_flight : int
        Transfers that were let in and have not left.
    last_used : float
        When the last one left, or it was made: seconds of the monotonic clock.
    told_as : bytes or None
        What the messenger calls it, if that knows it.
    connections : dict of str to bytes
        Its connection info, once it is connected.
    everywhere : dict of (str, int, int) to bytes
        By backend, memory type and device, the keys that are for all memory, see `ledger`.
    reliable : float
        From when on that may be relied on, by the same clock.
    lanes_failed : int
        How often lanes could not transfer with it, which the connection then did.
    """

    busy: bool
    alias: Final[bytes]
    identity: Final[bytes]
    here: bool
    near: bool
    itself: bool
    broken: bool
    in_flight: Final[int]
    last_used: float
    told_as: bytes | None
    reliable: float
    lanes_failed: int
    connections: dict[str, bytes]
    everywhere: dict[tuple[str, int, int], bytes]

    def __new__(cls, alias: bytes, identity: bytes, *others: object) -> PeerState: ...
    @property
    def loaded(self) -> set[bytes]:
        """Metadata all of which is known to be loaded; not all such metadata."""

    def note_loaded(self, blob: bytes) -> None:
        """Note that all of some metadata has been loaded, which stays so."""

    def has_loaded(self, envelope: Envelope) -> bool:
        """Whether all that some metadata, parsed, describes has been loaded: by a look at it."""

    @property
    def is_busy_here(self) -> bool:
        """Whether this thread made it busy: it is a signal handler's, or a finalizer's, now."""

    def join(self, hold: object | None = None) -> None:
        """Count a transfer in, and note in `hold`, if there is one, that it is to leave."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has been exchanged for a while."""

    def enter(self) -> bool:
        """Count a transfer in, if the connection stands and nothing is being loaded."""

    def claim(self) -> bool:
        """Make it busy, if it is not and nothing is in flight."""

    def leave(self, hold: object | None = None) -> None:
        """Count a transfer out: of `hold`, if there is one, and not twice."""

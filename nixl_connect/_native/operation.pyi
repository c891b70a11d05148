# Made by "make stubs" from the .pyx file beside it: do not edit.
"""One operation, as Python holds it.

Dropping an operation cancels it: its deallocation marks the record and leaves every call into NIXL
to the completion thread, so a finalizer may run on any thread at any point.

In a forked child the inherited objects are copies without a thread, and a lock that the parent's
threads held stays locked for ever: they refuse work, and when deallocated leave the record alone.
"""

from enum import IntEnum
from typing import Final

from nixl_connect._native.hold import Hold
from nixl_connect._native.waker import Waker

class Reason(IntEnum):
    """Why an operation ended; see record.pxd."""

    NONE = ...
    LOCAL = ...
    CLOSED = ...
    TIMEOUT = ...
    TRANSFER = ...
    PEER_LOST = ...
    NOT_TOLD = ...
    PEER_CANCELLED = ...
    PEER_FAILED = ...
    MOVER_LOST = ...
    MOVER_SILENT = ...

class Stage(IntEnum):
    """What is known of the memory of an operation that ended; see record.pxd."""

    QUARANTINED = ...
    CLEAN = ...
    UNKNOWN = ...

class Operation:
    """The handle of one operation. Made by `Reactor.passive` and `Reactor.active`."""

    is_started: Final[bool]

    def discard(self) -> object:
        """End an operation that was never started, with what it holds; nothing is in flight."""

    @property
    def hold(self) -> Hold | None:
        """What it holds, until that has been let go of."""

    @property
    def id(self) -> int:
        """Number of the operation in its reactor, from 1."""

    @property
    def status(self) -> int:
        """Its OperationStatus. One atomic read."""

    @property
    def has_ended(self) -> bool:
        """Whether its status is final."""

    @property
    def reason(self) -> int:
        """Why it ended, a Reason."""

    @property
    def error(self) -> int:
        """NIXL's status where the transfer failed, else 0."""

    def listen(self, timeout: object) -> bool:
        """Start to wait for the key. False when the reactor is stopping."""

    @property
    def is_small(self) -> bool:
        """Whether it is a transfer that `Reactor.look` may see end within microseconds."""

    def start(self, timeout: object, inline_post: bool, large: bool) -> object:
        """Start the transfer, on this thread or on the reactor's.

        Where it ends meanwhile, so does what it holds.

        Parameters
        ----------
        timeout : float or None
            Seconds from now to its deadline.
        inline_post : bool
            Whether to post it on this thread. Lanes have threads of their own.
        large : bool
            Whether NIXL may take milliseconds for it at a stretch.
        """

    def expose(self) -> bool:
        """Note that a peer will know the memory: from here on its end is followed by a quarantine.

        Returns
        -------
        bool
            False, and nothing, if the operation has ended.
        """

    def cancel(self) -> bool:
        """Cancel, unless it has ended; return whether this call did."""

    def keep(self) -> None:
        """Have the reaper woken at its end, or now if that has come."""

    def finish(self) -> bool:
        """End a passive operation as complete, unless it has ended; return whether this call did.

        Peers that know its memory may still touch it.
        """

    @property
    def transfers(self) -> tuple[int, int]:
        """How many transfers with its memory have completed, and how many not, where it counts."""

    def glance(self, budget: float) -> bool:
        """Return whether it has ended, after a moment where that says something: see `wait`.

        Parameters
        ----------
        budget : float
            Most seconds to look at a small transfer.
        """

    def attach(self, waker: Waker, token: int) -> bool:
        """Have `waker` woken with `token` at the end. False, and nothing, if that has come."""

    def detach(self, token: int) -> None:
        """Undo `attach`, if the end has not come between."""

    def wait(self, timeout: float | None) -> bool:
        """Block, without the GIL, for the end; return whether it came within `timeout` seconds."""

def live() -> int:
    """Return how many native records there are in the process: for tests of leaks."""

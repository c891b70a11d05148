# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Transfers that are posted again and again: one request, many posts.

Such an operation stays INITIALIZED between its posts, and its request belongs to whoever calls
here: one thread at a time, which the caller sees to. It ends like any other: `conclude` announces
it as complete, `give_up` leaves it to the completion thread, which drains what is in flight, tells
the peer and lets go of the request.

While a post is in flight the operation is counted as active, so that closing waits for it.
"""

from enum import IntEnum
from typing import Final

from nixl_connect._native.handle import Transfer
from nixl_connect._native.operation import Operation
from nixl_connect._native.peer import PeerState

class Outcome(IntEnum):
    """What may become of a post, beside NIXL's statuses."""

    PEER_GONE = ...
    CLOSED = ...
    FORKED = ...

class Prepared:
    """What a program holds of a prepared transfer, as far as it is native.

    What derives from it has `_transfer_patiently`, for what is unusual, `_go_on`, which waits for
    what is in flight and says what has failed, and `_break_off`, which ends it during a turn.

    Attributes
    ----------
    _native : Operation or None
        None once it is closed.
    _peer : PeerState
        The connection that its request is for.
    _timeout : float
        Seconds that a transfer has where nothing else is said.
    """

    _native: Operation | None
    _peer: PeerState
    _timeout: Final[float]

    def _set_up(self, operation: Transfer, large: int) -> None:
        """Take what it is about from an operation that has not begun.

        Parameters
        ----------
        large : int
            Bytes of a transfer from which on NIXL may take milliseconds for it at a stretch.
        """

    def _acquire(self) -> bool:
        """Take the turn, unless somebody has it; return whether that was so.

        It may be given back by another thread.
        """

    def _release(self) -> None:
        """Give the turn back."""

    def transfer_blocking(self, timeout: float | None = None) -> None:
        """Move the bytes, and block until all have arrived: the blocking form of `transfer`."""

def post(operation: Operation, patience: float, large: bool, again: bool) -> int:
    """Post the request and wait for its bytes, without the GIL.

    Parameters
    ----------
    operation : Operation
        Prepared, not ended.
    patience : float
        Most seconds to wait.
    large : bool
        Whether NIXL may take milliseconds for it at a stretch.
    again : bool
        False to go on waiting for the last post.

    Returns
    -------
    int
        NIXL's status: 0 when the bytes are there, 1 when they are still in flight; then call again,
        or give up. Or an Outcome, then give up: the peer was on this host, and is no more.
    """

def conclude(operation: Operation) -> None:
    """Release the request and tell the peer that its operation is complete. Nothing in flight.

    What it held is to be collected.
    """

def give_up(operation: Operation, reason: int, failed: bool) -> bool:
    """End it as cancelled or failed. Makes no call to NIXL: the completion thread does the rest.

    Returns
    -------
    bool
        False, and nothing, where that thread is gone and nothing is in flight.
    """

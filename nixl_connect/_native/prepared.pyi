# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Transfers that are posted again and again: one request, many posts.

Such an operation stays INITIALIZED between its posts, and its request belongs to whoever calls
here: one thread at a time, which the caller sees to. It ends like any other: `conclude` announces
it as complete, `give_up` leaves it to the completion thread, which drains what is in flight, tells
the peer and lets go of the request.

While a post is in flight the operation is counted as active, so that closing waits for it.
"""

from enum import IntEnum

from nixl_connect._native.operation import Operation

class Outcome(IntEnum):
    """What may become of a post, beside NIXL's statuses."""

    PEER_GONE = ...

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

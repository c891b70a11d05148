"""What there is of an operation in the model: statuses, both sides, and what is assumed."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Status(IntEnum):
    """As OperationStatus, which is there only where the package is built."""

    UNINITIALIZED = 0
    INITIALIZED = 1
    IN_PROGRESS = 2
    COMPLETE = 3
    CANCELLED = 4
    ERRORED = 5


UNINITIALIZED, INITIALIZED, IN_PROGRESS, COMPLETE, CANCELLED, ERRORED = Status

# Memory: nobody's yet, held, held until a quarantine is over, or for the rest of the process, free.
NONE, HELD, QUARANTINED, KEPT, FREE = "none", "held", "quarantined", "kept", "free"
# A request: NIXL moves bytes; all are there; it reported an error, and some may still move; it
# lost the connection, and nothing moves.
MOVING, ARRIVED, STRAYING, LOST = "moving", "arrived", "straying", "lost"
# A process.
RUNS, GONE = "runs", "gone"

SENT, UNSENT = "sent", "unsent"

ASSUMPTIONS = {
    "quarantine": "nobody touches memory for longer than its quarantine",
    "once": "where several transfers are counted, NIXL delivers no message twice",
    "as many": "of an offer to N, no more than N are at it, those left out that failed",
    "in time": "nobody begins with what an offer told once the quarantine of its memory is over",
    "refusal": "NIXL refuses a message only where nothing moves any more over the connection",
    "last words": "what a process of the same host had said arrives before it is missed",
}


class Offer(NamedTuple):
    """The passive side."""

    status: Status = INITIALIZED
    reason: str = ""
    exposed: bool = False
    memory: str = HELD
    done: int = 0
    failed: int = 0
    tainted: bool = False
    is_open: bool = True
    process: str = RUNS


class Move(NamedTuple):
    """An active side, in a process of its own."""

    status: Status = UNINITIALIZED
    reason: str = ""
    memory: str = NONE
    request: str = NONE
    reported: bool = False  # an error, of NIXL, which the library has yet to see
    arrived: bool = False  # whether all bytes did
    claimed: bool = False
    said: str = ""  # the last word: whether it was sent
    lost: bool = False  # whether a word was
    erred: bool = False  # whether NIXL reported an error
    linked: bool = True  # whether its connection stands
    known: bool = False  # to the passive side, by its doorbell
    is_open: bool = True
    process: str = RUNS
    words: tuple[str, ...] = ()  # on their way
    doubled: bool = False


class State(NamedTuple):
    """One offer, and those who know its metadata."""

    transfers: int  # how many complete it; 0: its owner does
    written: bool  # else read
    offer: Offer
    moves: tuple[Move, ...]


def touches(move: Move) -> bool:
    """Whether bytes may be moved still."""
    return move.request in (MOVING, STRAYING)


def may_touch(move: Move) -> bool:
    """Whether bytes may be moved, now or after a request that is about to be made."""
    return touches(move) or (move.status == INITIALIZED and move.process != GONE)

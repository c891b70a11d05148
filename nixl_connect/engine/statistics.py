"""What a connector reports about itself: figures, its operations, and its peers."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from nixl_connect.status import OperationStatus

if TYPE_CHECKING:
    from nixl_connect.engine.engine import Engine

KINDS = ("readable", "writable", "read", "write", "repeated")
"""Kinds of operations, in the order of the native layer. The last one stands for the single
transfers of prepared ones."""
_PASSIVE = frozenset(KINDS[:2])
BOUNDS = tuple(math.ldexp(1e-6, i) for i in range(29))
"""Upper bounds of the histogram of durations, in seconds; longer durations are counted last."""


PHASES = ("offered", "waiting", "queued", "in flight", "draining", "quarantined")
"""Phases of operations, as in `OperationReport.phase`."""


class OperationReport(NamedTuple):
    """An operation that has not ended, or whose memory a peer may still touch.

    Its `str` is a line for a log.
    """

    number: int
    """Number of the operation within its connection, from 1."""

    kind: str
    """``readable``, ``writable``, ``read``, ``write``, or ``repeated`` for a prepared transfer."""

    phase: str
    """``offered`` until its metadata is asked for, ``waiting`` for the peer, ``queued`` until it is
    posted, ``in flight``, ``draining`` if it was given up but is still in flight, or
    ``quarantined`` if it is over but a slow peer may still touch its memory."""

    nbytes: int
    """Size of its memory, in bytes."""

    age: float
    """Seconds since it began."""

    left: float
    """Seconds until its deadline, or until the end of its quarantine; infinity if there is none."""

    peer: str
    """Name of the peer, if it is known."""

    transfers: int | None
    """How many transfers complete it: 1, or what `transfers` was when it was offered to many."""

    transfers_done: int
    """How many have completed, where it is offered to many."""

    transfers_failed: int
    """How many failed or were cancelled, where it is offered to many."""

    def __str__(self) -> str:
        peer = f", peer {self.peer!r}" if self.peer else ""
        left = "" if math.isinf(self.left) else f", {self.left:.1f} s left"
        done = ""
        if self.transfers != 1:
            most = "any number" if self.transfers is None else self.transfers
            done = f", {self.transfers_done} of {most} transfers done"
        return (
            f"operation {self.number}, {self.kind}, {self.nbytes} bytes{peer}: {self.phase}"
            f"{done}, {self.age:.1f} s old{left}"
        )


class PeerReport(NamedTuple):
    """A remote agent that a connector is connected to."""

    name: str
    """Name of the agent."""

    regions: int
    """Regions of its memory that NIXL has loaded here; one stands for all memory, where it can."""

    in_flight: int
    """Transfers to and from it that have not ended."""

    idle: float
    """Seconds since the last transfer ended; 0 while any is in flight."""

    near: bool
    """Whether the agent was found to be on this host."""


def peers(engine: Engine) -> list[PeerReport]:
    """Return the peers of an engine, most recently used first."""
    engine.refuse_after_fork()
    engine.peers.look()
    now = time.monotonic()
    found: dict[str, PeerReport] = {}
    # Transfers may still end over a connection in whose place there is another, which comes first.
    for peer in engine.peers.known():
        if not peer.connections or (peer.broken and not peer.in_flight):
            continue  # it is being connected, or lost
        other = found.get(peer.name)
        in_flight = peer.in_flight + (other.in_flight if other else 0)
        idle = 0.0 if in_flight else max(now - peer.last_used, 0.0)
        if other is None:
            regions = peer.ledger.regions
            found[peer.name] = PeerReport(peer.name, regions, in_flight, idle, peer.near)
        else:
            found[peer.name] = other._replace(in_flight=in_flight, idle=min(idle, other.idle))
    return sorted(found.values(), key=lambda report: (report.idle, report.name))


def operations(engine: Engine, min_age: float, limit: int | None) -> list[OperationReport]:
    """Return an engine's oldest operations of at least `min_age` seconds, oldest first."""
    now = time.monotonic()
    return [
        OperationReport(
            number=number,
            kind=KINDS[kind],
            phase=_phase(KINDS[kind], OperationStatus(status), exposed=exposed),
            nbytes=nbytes,
            age=max(now - begun, 0.0),
            left=max(deadline - now, 0.0),
            peer=peer,
            transfers=transfers or None,
            transfers_done=done,
            transfers_failed=failed,
        )
        for (
            number,
            kind,
            status,
            nbytes,
            exposed,
            transfers,
            done,
            failed,
            begun,
            deadline,
            peer,
        ) in engine.operations(now - min_age, sys.maxsize if limit is None else limit)
    ]


def _phase(kind: str, status: OperationStatus, *, exposed: bool) -> str:
    ended = status > OperationStatus.IN_PROGRESS
    if kind in _PASSIVE:
        return "quarantined" if ended else "waiting" if exposed else "offered"
    if ended:
        return "draining"
    # A prepared operation is listed only while a transfer of its goes on.
    posted = status == OperationStatus.IN_PROGRESS or kind == "repeated"
    return "in flight" if posted else "queued"


class OperationFigures(TypedDict):
    """What a connector's operations are doing, and what they hold."""

    started: int
    waiting: int
    phases: dict[str, int]
    passive: int
    active: int
    held: int
    held_bytes: int
    quarantined: int
    quarantined_bytes: int


class EndedFigures(TypedDict):
    """How the operations of one kind ended."""

    complete: int
    cancelled: int
    errored: int
    bytes: int
    seconds: float
    durations: list[int]


class RegistrationFigures(TypedDict):
    """What is registered."""

    count: int
    bytes: int


class LaneFigures(TypedDict):
    """What the lanes hold."""

    registrations: int
    connections: int


class PeerFigures(TypedDict):
    """The peers that are known."""

    count: int
    connections: int
    reloads: int
    evictions: int


class NotificationFigures(TypedDict):
    """Notifications from peers."""

    received: int
    unmatched: int
    rings: int
    rings_ignored: int


class LibraryFigures(TypedDict):
    """The NIXL library in use."""

    path: str
    version: str | None


class Statistics(TypedDict):
    """Result of `Connector.stats`, from the first operation on. The documentation has a table.

    At run time, all of these types are plain dicts.
    """

    operations: OperationFigures
    ended: dict[str, EndedFigures]
    duration_bounds: list[float]
    registrations: RegistrationFigures
    lanes: LaneFigures
    peers: PeerFigures
    notifications: NotificationFigures
    library: LibraryFigures


def statistics(engine: Engine) -> Statistics:
    """Return what an engine holds and has done."""
    counters, tallies = engine.counters()
    engine.peers.look()
    phases = dict.fromkeys(PHASES, 0)
    for kind, status, exposed, count in engine.population():
        phases[_phase(KINDS[kind], OperationStatus(status), exposed=bool(exposed))] += count
    held, held_bytes = engine.keeper.kept
    return {
        "operations": {
            "started": counters["operations"],
            "waiting": counters["waiting"],
            "phases": phases,
            "passive": counters["passive"],
            "active": counters["active"],
            "held": held,
            "held_bytes": held_bytes,
            "quarantined": counters["quarantined"],
            "quarantined_bytes": counters["quarantined_bytes"],
        },
        "ended": {
            kind: {
                "complete": complete,
                "cancelled": cancelled,
                "errored": errored,
                "bytes": nbytes,
                "seconds": ns / 1e9,
                "durations": durations,
            }
            for kind, (complete, cancelled, errored, nbytes, ns, durations) in zip(
                KINDS, tallies, strict=True
            )
        },
        "duration_bounds": list(BOUNDS),
        "registrations": {
            "count": len(engine.registry),
            "bytes": engine.registry.registered_bytes,
        },
        "lanes": {
            "registrations": sum(len(lane.registry) for lane in engine.lanes),
            "connections": sum(lane.peers.connections for lane in engine.lanes),
        },
        "peers": {
            "count": len(engine.peers),
            "connections": engine.peers.connections,
            "reloads": engine.peers.reloads,
            "evictions": engine.peers.evictions,
        },
        "notifications": {
            "received": counters["notifications"],
            "unmatched": counters["notifications_unmatched"],
            "rings": counters["rings"],
            "rings_ignored": counters["rings_ignored"],
        },
        "library": {"path": engine.library.path, "version": engine.library.version},
    }

"""Makes native operations and starts them: what has to be held, loaded and built for each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple

from nixl_connect._native import lane as native_lane
from nixl_connect._native import prepared as native_prepared
from nixl_connect._native.agent import AgentClosedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.envelope import row_by_row
from nixl_connect._native.operation import Operation, Stage
from nixl_connect._native.packing import Regions
from nixl_connect._native.reactor import Reactor
from nixl_connect.errors import (
    InternalError,
    PeerLostError,
    QuarantineError,
    RegistrationError,
    TransferError,
)
from nixl_connect.keeper import Hold, Keeper
from nixl_connect.lanes import FEW, LEAST_BYTES, LEAST_PIECE, Lane, Lanes
from nixl_connect.peer import Peer
from nixl_connect.peers import Peers
from nixl_connect.permit import NotQuickError, Permit
from nixl_connect.plan import Local, Plan, Target
from nixl_connect.registrations import Registration, Registrations
from nixl_connect.used import UsedKeys

logger: logging.Logger = logging.getLogger(__name__)

# Transfers up to this many bytes are posted on the caller's thread: for the bytes that a copy moves
# in some tens of microseconds, a change of thread costs more than the copy.
INLINE_BYTES = 256 * 1024
_CLEAN = int(Stage.CLEAN)
# NIXL's memory type of host memory.
_HOST = 0
# Calls to NIXL for more than this may copy for a millisecond and longer.
LARGE_BYTES = 1024 * 1024


# How often lanes may fail with a peer's connection before it goes without.
_MOST_FAILURES = 2


class _LaneError(Exception):
    """A lane cannot take its part."""


class _Way(Enum):
    """How to make a transfer, each after those before it were refused."""

    AT_BEST = 0
    """With lanes, if it is one for lanes."""
    CONNECTION = 1
    """By the connection's own agent."""
    ROW_BY_ROW = 2
    """Its rows loaded as regions of their own."""
    ANEW = 3
    """Over another connection."""


class Part(NamedTuple):
    """What one request of a transfer is made of."""

    lane: native_lane.Lane | None
    """The connection's own agent, if there is none."""

    peer: bytes
    """What that agent calls the peer."""

    registrations: Registrations
    """Those of its agent."""

    held: list[Registration]
    """Which of them it needs: to be filled."""

    local: Regions
    remote: Regions


class Starter:
    """Starts the operations of one engine.

    Parameters
    ----------
    reactor, registrations, peers, keeper, lanes
        Those of the engine.
    quarantine : float
        Seconds for which the memory of an abandoned passive operation is kept.
    most_quarantined : int
        Bytes of such memory from which on no passive operation is made.
    usable : context manager
        Refuses work once the engine is closed or forked, and translates errors.
    """

    def __init__(
        self,
        reactor: Reactor,
        registrations: Registrations,
        peers: Peers,
        keeper: Keeper,
        lanes: Lanes,
        *,
        quarantine: float,
        most_quarantined: int,
        usable: AbstractContextManager[None],
    ) -> None:
        self._reactor = reactor
        self._registrations = registrations
        self._peers = peers
        self._keeper = keeper
        self._lanes = lanes
        self._quarantine = quarantine
        self._most_quarantined = most_quarantined
        self._usable = usable
        self._used = UsedKeys()

    def register(self, hold: Hold, local: Local, permit: Permit) -> None:
        """Register memory for a passive operation's hold, to be given to `listen` or released."""
        with self._usable:
            self._keeper.refuse_amid()
            if self._reactor.quarantined_bytes >= self._most_quarantined:
                raise QuarantineError(
                    f"{self._reactor.quarantined_bytes} bytes of abandoned operations are in "
                    f"quarantine; max_quarantine_bytes is {self._most_quarantined}"
                )
            self._keeper.keep_up(permit)
            with self._entered(self._registrations, permit):
                permit.check()
                self._registrations.acquire(
                    local.registered,
                    local.mem_type,
                    hold.registrations,
                    owners=local.memory,
                    patient=permit.patient,
                )

    @property
    def is_free(self) -> bool:
        """Whether no call to NIXL has to wait for one that may take long."""
        return not self._reactor.is_copying and not self._peers.calls

    def _entered(self, table: Registrations, permit: Permit) -> AbstractContextManager[None]:
        """Return what takes a table's lock; raise NotQuickError for want of patience."""
        if not self.is_free:
            permit.need_patience()
        return table.entered(permit)

    def listen(self, hold: Hold, key: bytes, timeout: float, *, writable: bool) -> Operation:
        """Wait for a peer's notification of `key`, and keep `hold` until no peer can touch it.

        Parameters
        ----------
        hold : Hold
            What the operation holds. Still the caller's if this raises.
        key : bytes
            The notification key.
        timeout : float
            Seconds after which the operation fails; infinity for never.
        writable : bool
            Whether the peer writes; else it reads.
        """
        with self._usable:
            operation = self._reactor.passive(key, self._quarantine, writable, hold.nbytes)
            self._keeper.holds[operation.id] = hold
            if not operation.listen(timeout):
                del self._keeper.holds[operation.id]
                raise AgentClosedError
        if logger.isEnabledFor(logging.DEBUG):
            side = "writable" if writable else "readable"
            logger.debug("operation %d: %s, %d bytes", operation.id, side, hold.nbytes)
        return operation

    def transfer(self, plan: Plan, permit: Permit) -> Operation:
        """Load a peer's metadata, register local memory, and start a transfer.

        Parameters
        ----------
        plan : Plan
            What to transfer, between which regions, row by row.
        permit : Permit
            Whether to wait, and whether to start at all.
        """

        def start(operation: Operation) -> None:
            nbytes = plan.local.regions.nbytes
            left = min(plan.timeout, max(permit.end - time.monotonic(), 0))
            try:
                operation.start(left, nbytes <= INLINE_BYTES, nbytes > LARGE_BYTES)
            finally:
                if operation.is_settled:
                    # In one call, before which no signal handler runs.
                    self._keeper.ended.append((operation.id, _CLEAN, operation.reason))
                    self._keeper.collect()

        with self._usable:
            operation = self._made(plan, permit, start)[0]
        if logger.isEnabledFor(logging.DEBUG):
            verb, nbytes = ("write", "read")[plan.kind == 0], plan.local.regions.nbytes
            peer = plan.target.described.agent
            logger.debug("operation %d: %s, %d bytes, peer %s", operation.id, verb, nbytes, peer)
        return operation

    def prepare(self, plan: Plan, permit: Permit, *, anew: bool) -> tuple[Operation, Peer]:
        """Do all for a transfer but start it; see `PreparedTransfer`. Parameters as for `transfer`.

        Parameters
        ----------
        anew : bool
            Whether it was prepared before, over a connection that is gone.

        Returns
        -------
        operation : Operation
            Not started. To be ended by `conclude`, `unprepare`, or giving it up.
        peer : Peer
            For `Peer.enter`, before each transfer.
        """
        with self._usable:
            operation, peer = self._made(plan, permit, None, claimed=anew)
        # A prepared transfer does not keep a connection from being taken down; each post does.
        peer.leave(self._keeper.holds[operation.id])
        return operation, peer

    def unprepare(self, operation: Operation) -> None:
        """Drop a prepared operation whose peer was disconnected, without a word to it."""
        hold = self._keeper.holds.pop(operation.id)
        operation.discard()  # first, since it refers to the registrations
        self._keeper.release(hold)

    def conclude(self, operation: Operation) -> None:
        """End a prepared operation as complete."""
        with self._usable:
            native_prepared.conclude(operation)

    def _made(
        self,
        plan: Plan,
        permit: Permit,
        start: Callable[[Operation], None] | None,
        *,
        claimed: bool = False,
    ) -> tuple[Operation, Peer]:
        """Make an operation and start it, by whichever way NIXL does not refuse."""
        way: _Way | None = _Way.AT_BEST
        while way is not None:
            made = self._attempt(plan, permit, start, way, claimed=claimed)
            if isinstance(made, tuple):
                return made
            way = made
            permit.need_patience()
        raise InternalError("a transfer was neither started nor refused")

    def _attempt(
        self,
        plan: Plan,
        permit: Permit,
        start: Callable[[Operation], None] | None,
        way: _Way,
        *,
        claimed: bool,
    ) -> tuple[Operation, Peer] | _Way:
        """Make and start an operation; return the next way where NIXL refuses this one."""
        operation: Operation | None = None
        hold = Hold([], plan.local.memory, plan.local.regions.nbytes, None)
        kept = False
        target = plan.target
        self._keeper.refuse_amid()
        self._keeper.keep_up(permit)
        # A beginning that came too late may still have the key, until the peer is connected.
        if not self.is_free or self._peers.is_busy(target.described.agent):
            permit.need_patience()
        if not claimed:
            self._used.claim(target.key)
        try:
            # A peer on this host, which may have to look for a transfer to go on, wakes meanwhile.
            self._reactor.announce(self._peers.identity_of(target.described))
            described = target.described
            if way is _Way.ROW_BY_ROW:
                described = described._replace(
                    sections=row_by_row(described.sections, target.regions, target.mem_type)
                )
            peer = self._peers.admit(described, target.blob, plan.timeout, permit, hold)
            # A prepared one lasts, and holds no lane.
            at_best = start is not None and way is _Way.AT_BEST
            lanes = self._lanes_for(plan, peer, permit) if at_best else []
            operation = self._request(plan, hold, permit, lanes)
            with permit.lock:
                permit.check()
                self._keeper.holds[operation.id] = hold
                if start is not None:
                    start(operation)
            kept = True
            return operation, peer
        except NativeError as error:
            return self._next_way(way, error, peer)
        except _LaneError as error:
            # They do not know what the connection's agent knows; and that can do it, too.
            peer.lanes_failed += 1
            logger.debug("%s: peer %s: no lanes: %s", self._reactor.name, peer.name, error)
            return _Way.CONNECTION
        finally:
            # Whatever a signal handler raises: what was started keeps what it holds.
            if not kept and (operation is None or not operation.is_started):
                if operation is not None:
                    self._keeper.holds.pop(operation.id, None)
                    operation.discard()  # first, since it refers to the registrations
                self._keeper.release(hold)
                if not claimed:
                    self._used.give_back(target.key)

    def _next_way(self, way: _Way, error: NativeError, peer: Peer) -> _Way:
        """Return what to try when the connection's own agent has refused a request."""
        if way in (_Way.AT_BEST, _Way.CONNECTION):
            # Older regions of the peer may hide the wanted ones: NIXL looks at neighbours alone.
            return _Way.ROW_BY_ROW
        if way is _Way.ROW_BY_ROW:
            # Or NIXL has dropped the peer behind our back, when another transfer broke.
            self._peers.mark_broken(peer)
            return _Way.ANEW
        status = status_name(error.status)
        raise TransferError(
            f"NIXL refused the transfer with peer {peer.name!r}: {status}",
            status=status,
            peer=peer.name,
        ) from None

    def _request(self, plan: Plan, hold: Hold, permit: Permit, lanes: list[Lane]) -> Operation:
        """Make an operation of a plan, with what `hold` has to hold for it."""
        assert hold.peer is not None
        local, target = plan.local, plan.target
        peer, alias = hold.peer, hold.peer.alias
        known = peer.acquaintance
        told_as = None if known is None or time.monotonic() < known.reliable else known.alias
        operation = self._reactor.active(
            alias, peer.identity, peer.near, target.key, told_as, self._quarantine
        )
        try:
            if lanes:
                self._add_lanes(operation, plan, hold, permit, lanes)
            else:
                held = hold.registrations
                part = Part(None, alias, self._registrations, held, local.regions, target.regions)
                self._add_part(operation, plan, part, local.registered, permit)
        except BaseException:
            # Whatever keeps this frame alive: the requests go before what they refer to.
            operation.discard()
            raise
        return operation

    def _lanes_for(self, plan: Plan, peer: Peer, permit: Permit) -> list[Lane]:
        """Return the lanes for a transfer: none, but for long copies within this host."""
        if (
            plan.local.regions.nbytes < max(LEAST_BYTES, LEAST_PIECE * len(plan.local.regions))
            or not plan.local.mem_type == plan.target.mem_type == _HOST
            or sum(len(section.regions) for section in plan.target.described.sections) > FEW
            or not peer.near
            or peer.lanes_failed >= _MOST_FAILURES
            or not self._lanes.exist
        ):
            return []
        if not self._lanes.all:
            permit.need_patience()
        return self._lanes.open()

    def _add_lanes(
        self,
        operation: Operation,
        plan: Plan,
        hold: Hold,
        permit: Permit,
        lanes: list[Lane],
    ) -> None:
        """Share a transfer among lanes."""
        if not permit.patient and any(lane.native.is_busy for lane in lanes):
            raise NotQuickError
        local = plan.local.regions.split(len(lanes))
        remote = plan.target.regions.split(len(lanes))
        for lane, here, there in zip(lanes, local, remote, strict=True):
            target = plan.target._replace(regions=there)
            peer = self._lane_peer(lane, target, plan.timeout, permit)
            held: list[Registration] = []
            hold.parts.append((lane, peer, held))
            # What is registered as a whole here is so there, however many rows are in it.
            held_before = len(hold.registrations)
            self._registrations.acquire_covering(here, plan.local.mem_type, hold.registrations)
            whole = hold.registrations[held_before:]
            rows = list({known.row: None for known in whole})
            part = Part(lane.native, peer.alias, lane.registrations, held, here, there)
            try:
                if rows:
                    with self._entered(lane.registrations, permit):
                        lane.registrations.acquire(
                            Regions(rows), plan.local.mem_type, held, patient=permit.patient
                        )
                self._add_part(operation, plan, part, here, permit)
            except NativeError as error:
                lane.peers.mark_broken(peer)
                raise _LaneError(str(error)) from None
            except RegistrationError as error:
                raise _LaneError(str(error)) from None

    def _lane_peer(self, lane: Lane, target: Target, timeout: float, permit: Permit) -> Peer:
        """Return a lane's connection to a peer, with what is wanted loaded row by row.

        So nothing that was loaded before can hide it: see `_Way.ROW_BY_ROW`. It is not much: `FEW`.
        """
        described = target.described
        sections = row_by_row(described.sections, target.regions, target.mem_type)
        try:
            return lane.peers.admit(
                described._replace(sections=sections), target.blob, timeout, permit
            )
        except PeerLostError as error:
            raise _LaneError(str(error)) from None

    def _add_part(
        self, operation: Operation, plan: Plan, part: Part, registered: Regions, permit: Permit
    ) -> None:
        """Build a transfer request whose local registrations outlive it.

        NIXL picks, for each row, any registration that covers it, and the request refers to that
        one for as long as it lives. So all that cover a row are held, from before any could leave.
        Within this agent that is so on both sides, and the memory of both is here: what is held
        keeps it alive, too, whatever becomes of the passive operation.
        """
        table, mem_type = part.registrations, plan.local.mem_type
        within = plan.target.described.agent.encode() == self._reactor.name
        with self._entered(table, permit):
            if within:
                registered = self._with_own(plan, part, registered, permit)
            owners = plan.local.memory if part.lane is None else []
            table.acquire(registered, mem_type, part.held, owners=owners, patient=permit.patient)
            operation.add_part(
                part.lane,
                part.peer,
                plan.kind,
                part.local,
                mem_type,
                part.remote,
                plan.target.mem_type,
            )
            table.acquire_covering(part.local, mem_type, part.held)
            if within:
                table.acquire_covering(part.remote, plan.target.mem_type, part.held)

    def _with_own(self, plan: Plan, part: Part, registered: Regions, permit: Permit) -> Regions:
        """Return what a transfer within this agent has to acquire. The table's lock held.

        With the passive side's regions: NIXL has to find them as it has to find the others, and
        what is registered for one may hide another.

        Raises
        ------
        TransferError
            They are not registered: nothing keeps that memory alive.
        """
        mem_type = plan.target.mem_type
        if not part.registrations.covers(part.remote, mem_type):
            raise TransferError(
                "the descriptors name memory of this connector that is not registered; the "
                "operation that they are from has ended",
                peer=plan.target.described.agent,
            )
        if mem_type == plan.local.mem_type:
            return Regions.join([registered, part.remote])
        part.registrations.acquire(part.remote, mem_type, part.held, patient=permit.patient)
        return registered

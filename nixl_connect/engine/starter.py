"""Makes native operations and starts them: what has to be held, loaded and built for each."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple

from nixl_connect._native import lane as native_lane
from nixl_connect._native import prepared as native_prepared
from nixl_connect._native.agent import Agent, AgentClosedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.envelope import row_by_row
from nixl_connect._native.hold import Hold
from nixl_connect._native.lock import NotQuickError
from nixl_connect._native.operation import Operation
from nixl_connect._native.ordinary import Ordinary
from nixl_connect._native.packing import Regions
from nixl_connect._native.plan import Local, Plan
from nixl_connect._native.reactor import Reactor
from nixl_connect._native.registry import RefusedError, Registry
from nixl_connect._native.request import NotRegisteredError, add_part
from nixl_connect._native.used import UsedKeys
from nixl_connect.engine.keeper import Keeper
from nixl_connect.engine.options import Options
from nixl_connect.errors import (
    InternalError,
    PeerLostError,
    QuarantineError,
    RegistrationError,
    StateError,
    TransferError,
)
from nixl_connect.peers.lanes import FEW, LEAST_BYTES, LEAST_PIECE, Lane, Lanes
from nixl_connect.peers.peer import Peer
from nixl_connect.peers.peers import Peers
from nixl_connect.peers.registrations import refusal
from nixl_connect.permit import Permit
from nixl_connect.wire.codec import read_nixl_metadata

logger: logging.Logger = logging.getLogger(__name__)

# Transfers up to this many bytes are posted on the caller's thread: for the bytes that a copy moves
# in some tens of microseconds, a change of thread costs more than the copy.
INLINE_BYTES = 256 * 1024
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


class LanePart(NamedTuple):
    """What one request of a transfer is made of."""

    lane: native_lane.Lane | None
    """The connection's own agent, if there is none."""

    peer: bytes
    """What that agent calls the peer."""

    hold: Hold
    """What is to hold the registrations of its agent."""

    local: Regions
    remote: Regions


class Starter:
    """Starts the operations of one engine.

    Parameters
    ----------
    reactor, agent, registry, peers, keeper, lanes
        Those of the engine.
    options : Options
        Those of the connector.
    usable : context manager
        Refuses work once the engine is closed or forked, and translates errors.
    head : bytes
        The agent's metadata up to its sections.
    """

    def __init__(
        self,
        reactor: Reactor,
        agent: Agent,
        registry: Registry,
        peers: Peers,
        keeper: Keeper,
        *,
        lanes: Lanes,
        options: Options,
        usable: AbstractContextManager[None],
        head: bytes,
    ) -> None:
        self._reactor = reactor
        self._agent = agent
        self._registry = registry
        self._peers = peers
        self._keeper = keeper
        self._lanes = lanes
        self._quarantine = options.quarantine
        self._most_quarantined = options.max_quarantine_bytes
        self._usable = usable
        self._used = UsedKeys()
        self.ordinary: Ordinary = Ordinary(
            reactor,
            agent,
            registry,
            keeper.collector,
            self._used,
            peers.by_name,
            functools.partial(read_nixl_metadata, limit=options.max_metadata_bytes),
            quarantine=options.quarantine,
            most_quarantined=options.max_quarantine_bytes,
            inline=INLINE_BYTES,
            large=LARGE_BYTES,
            shared=LEAST_BYTES,
            piece=LEAST_PIECE,
            few=FEW,
            most_failures=_MOST_FAILURES,
            most=options.max_descriptors,
            timeout=options.timeout,
            sealed=options.seal is not None,
            head=head,
            most_metadata=min(options.max_metadata_bytes, sys.maxsize),
            is_debugging=functools.partial(logger.isEnabledFor, logging.DEBUG),
            report=_report,
        )
        if not lanes.exist:
            self.ordinary.lanes = []

    def register(self, hold: Hold, local: Local, permit: Permit) -> None:
        """Register memory for a passive operation's hold, to be given to `listen` or released."""
        with self._usable:
            if self._reactor.quarantined_bytes >= self._most_quarantined:
                raise QuarantineError(
                    f"{self._reactor.quarantined_bytes} bytes of abandoned operations are in "
                    f"quarantine; max_quarantine_bytes is {self._most_quarantined}"
                )
            if not self.is_free:
                permit.need_patience()
            permit.check()
            try:
                hold.acquire(local.registered, local.mem_type, local.memory, permit.patient)
            except RefusedError as error:
                raise refusal(error) from None

    @property
    def is_free(self) -> bool:
        """Whether no call to NIXL has to wait for one that may take long."""
        return not self._reactor.is_copying and not self._agent.is_busy

    def listen(
        self, hold: Hold, key: bytes, timeout: float, *, writable: bool, transfers: int
    ) -> Operation:
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
        transfers : int
            How many transfers complete it; 0 where only its owner does.
        """
        with self._usable:
            operation = self._reactor.passive(key, self._quarantine, writable, hold, transfers)
            if not operation.listen(timeout):
                raise AgentClosedError
        if logger.isEnabledFor(logging.DEBUG):
            _report(operation, "writable" if writable else "readable", hold.nbytes, None)
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
            operation.start(left, nbytes <= INLINE_BYTES, nbytes > LARGE_BYTES)

        with self._usable:
            operation = self._made(plan, permit, start)[0]
        self._keeper.collect()
        if logger.isEnabledFor(logging.DEBUG):
            kind, nbytes = ("read", "write")[plan.kind], plan.local.regions.nbytes
            _report(operation, kind, nbytes, plan.described.agent)
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
        peer.leave(operation.hold)
        return operation, peer

    def unprepare(self, operation: Operation) -> None:
        """Drop a prepared operation whose peer was disconnected, without a word to it."""
        operation.discard()
        self._keeper.collect()

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
        hold = Hold(self._registry, plan.local.memory, plan.local.regions.nbytes)
        kept = False
        self._keeper.refuse_amid()
        # A beginning that came too late may still have the key, until the peer is connected.
        if not self.is_free or self._peers.is_busy(plan.described.agent):
            permit.need_patience()
        if not claimed and not self._used.claim(plan.key):
            raise StateError(
                "this metadata has been used: an operation serves one transfer, so ask the peer "
                "for a new one"
            )
        try:
            # A peer on this host, which may have to look for a transfer to go on, wakes meanwhile.
            self._reactor.announce(self._peers.identity_of(plan.described))
            described = plan.described
            if way is _Way.ROW_BY_ROW:
                described = described._replace(
                    sections=row_by_row(described.sections, plan.remote, plan.remote_mem)
                )
            whole = described is plan.described
            peer = self._peers.admit(described, plan.blob, plan.timeout, permit, hold, whole=whole)
            # A prepared one lasts, and holds no lane.
            at_best = start is not None and way is _Way.AT_BEST
            lanes = self._lanes_for(plan, peer, permit) if at_best else []
            operation = self._request(plan, peer, hold, permit, lanes)
            with permit.lock:
                permit.check()
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
                    operation.discard()
                hold.release()
                if not claimed:
                    self._used.give_back(plan.key)

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

    def _request(
        self, plan: Plan, peer: Peer, hold: Hold, permit: Permit, lanes: list[Lane]
    ) -> Operation:
        """Make an operation of a plan, with what `hold` has to hold for it."""
        local = plan.local
        alias = peer.alias
        operation = self._reactor.active(
            alias,
            peer.identity,
            peer.near,
            plan.key,
            peer.told_as,
            peer.reliable,
            self._quarantine,
            hold,
        )
        try:
            if lanes:
                self._add_lanes(operation, plan, hold, permit, lanes)
            else:
                part = LanePart(None, alias, hold, local.regions, plan.remote)
                self._add_part(operation, plan, part, local.registered, permit)
        except BaseException:
            # Whatever keeps this frame alive: the requests go before what they refer to.
            operation.discard()
            raise
        return operation

    def _lanes_for(self, plan: Plan, peer: Peer, permit: Permit) -> list[Lane]:
        """Return the lanes for a transfer: none, but for long copies within this host."""
        if not self.ordinary.shares(plan, peer) or self.ordinary.lanes == []:
            return []
        if not self._lanes.all:
            permit.need_patience()
        lanes = self._lanes.open()
        if lanes or not self._lanes.exist:  # not where a signal handler came upon their opening
            self.ordinary.lanes = [(it.native, it.registry, it.peers.by_name) for it in lanes]
        return lanes

    def _add_lanes(
        self,
        operation: Operation,
        plan: Plan,
        hold: Hold,
        permit: Permit,
        lanes: list[Lane],
    ) -> None:
        """Share a transfer among lanes."""
        if not permit.patient and any(lane.is_busy for lane in lanes):
            raise NotQuickError
        local = plan.local.regions.split(len(lanes))
        remote = plan.remote.split(len(lanes))
        for lane, here, there in zip(lanes, local, remote, strict=True):
            its = Hold(lane.registry)
            hold.add(its)
            peer = self._lane_peer(lane, plan, there, permit, its)
            # What is registered as a whole here is so there, however many rows are in it.
            held_before = len(hold)
            hold.cover(here, plan.local.mem_type, permit.patient)
            rows = hold.rows(held_before)
            part = LanePart(lane.native, peer.alias, its, here, there)
            try:
                if rows:
                    # The lane's registrations keep the memory, too: they may go later.
                    owners: list[object] = [plan.local.memory] * len(rows)
                    its.acquire(Regions(rows), plan.local.mem_type, owners, permit.patient)
                self._add_part(operation, plan, part, here, permit)
            except NativeError as error:
                lane.peers.mark_broken(peer)
                raise _LaneError(str(error)) from None
            except (RefusedError, RegistrationError) as error:
                raise _LaneError(str(error)) from None

    def _lane_peer(
        self, lane: Lane, plan: Plan, remote: Regions, permit: Permit, hold: Hold
    ) -> Peer:
        """Return a lane's connection to a peer, with what is wanted loaded row by row.

        So nothing that was loaded before can hide it: see `_Way.ROW_BY_ROW`. It is not much: `FEW`.
        """
        described = plan.described
        sections = row_by_row(described.sections, remote, plan.remote_mem)
        try:
            return lane.peers.admit(
                described._replace(sections=sections),
                plan.blob,
                plan.timeout,
                permit,
                hold,
                whole=False,
            )
        except PeerLostError as error:
            raise _LaneError(str(error)) from None

    def _add_part(
        self, operation: Operation, plan: Plan, part: LanePart, registered: Regions, permit: Permit
    ) -> None:
        """Build a transfer request whose registrations outlive it: see `request`."""
        try:
            add_part(
                operation,
                part.hold,
                part.lane,
                part.peer,
                plan.kind,
                part.local,
                plan.local.mem_type,
                part.remote,
                plan.remote_mem,
                registered=registered,
                owners=plan.local.memory if part.lane is None else [plan.local.memory],
                within=plan.described.agent.encode() == self._reactor.name,
                patient=permit.patient,
            )
        except RefusedError as error:
            raise refusal(error) from None
        except NotRegisteredError:
            raise TransferError(
                "the descriptors name memory of this connector that is not registered; the "
                "operation that they are from has ended",
                peer=plan.described.agent,
            ) from None


def _report(operation: Operation, kind: str, nbytes: int, peer: str | None) -> None:
    """Log what has begun."""
    told = "" if peer is None else f", peer {peer}"
    logger.debug("operation %d: %s, %d bytes%s", operation.id, kind, nbytes, told)

"""The ordinary call: an operation made and begun in one go, on whichever thread asks for it.

What it takes is at hand: the peer is connected and has this metadata loaded, the memory is
registered or small, and nothing keeps NIXL busy for long. Where that is not so, or anything fails,
all is undone and nothing is said: the patient way, in `starter`, does the same again, step by step,
with all that may be needed and with the words for what may be wrong.
"""

cimport cython
from libc.stdint cimport uint64_t

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.atomic cimport peek_count
from nixl_connect._native.collector cimport Collector
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.envelope cimport names
from nixl_connect._native.hold cimport Hold
from nixl_connect._native.lane cimport Lane
from nixl_connect._native.operation cimport Operation
from nixl_connect._native.overlaps cimport between, within
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.plan cimport Local, Plan
from nixl_connect._native.peer cimport PeerState
from nixl_connect._native.reactor cimport Reactor
from nixl_connect._native.readers cimport of_list
from nixl_connect._native.registry cimport Registry
from nixl_connect._native.request cimport add
from nixl_connect._native.transfer cimport announce
from nixl_connect._native.used cimport UsedKeys

from nixl_connect._native.agent import AgentClosedError, AgentForkedError
from nixl_connect._native.capi import NativeError
from nixl_connect._native.envelope import parse
from nixl_connect._native.lock import NotQuickError
from nixl_connect._native.named import contradicts
from nixl_connect._native.registry import RefusedError
from nixl_connect._native.request import NotRegisteredError
from nixl_connect._native.text import blob_of

cdef enum:
    # Most bytes of a notification key, see `active`.
    LONGEST_KEY = 4096
    # NIXL's memory type of host memory.
    HOST = 0
    # What is short enough to be remembered, as text and as bytes, and how many such.
    SHORT = 4096
    MOST_TEXTS = 256

# What the patient way meets again, and has words for.
_UNUSUAL = (AgentClosedError, AgentForkedError, NativeError, NotQuickError, NotRegisteredError)


@cython.no_gc  # it refers downwards only
cdef class Ordinary:
    """The ordinary call of one engine. Safe to call from any thread.

    Parameters
    ----------
    reactor, agent, registry, collector, used
        Those of the engine.
    peers : dict of str to PeerState
        Whom the agent knows, by their names; the engine's own.
    read : callable
        Returns NIXL's metadata of its wire form, as it is and parsed, or raises.
    quarantine : float
        Seconds for which the memory of what was abandoned is kept.
    most_quarantined : int
        Bytes of such memory from which on nothing is offered.
    inline : int
        Most bytes of a transfer that is posted on the caller's thread.
    large : int
        Bytes of a transfer from which on NIXL may take milliseconds for it at a stretch.
    shared, piece : int
        Bytes of a transfer, and of each of its pieces on average, from which on lanes move it.
    few : int
        Most regions of a peer's metadata for that.
    most_failures : int
        So often lanes may fail with a peer.
    most : int
        Most descriptors of an operation.
    timeout : float
        Seconds for operations that are given no timeout.
    sealed : bool
        Whether metadata is sealed, so that no offer is ordinary and no metadata plain.
    head : bytes
        The agent's metadata up to its sections.
    most_metadata : int
        Most bytes of a peer's metadata.
    is_debugging : callable
        Whether to tell what is begun.
    report : callable
        Is told it: the operation, of which kind it is, its bytes, and the peer's name if there is
        one.

    Attributes
    ----------
    closed : bool
        Whether the engine is closed, or closing.
    reference : weakref.ref or None
        Of the connection, which descriptors note.
    lanes : list of (Lane, Registry, dict of str to PeerState), or None
        The lanes that are open, each with what its agent has registered and whom it knows. None
        while they are not open and may be; empty where there can be none.
    """

    def __cinit__(
        self, Reactor reactor not None, Agent agent not None, Registry registry not None,
        Collector collector not None, UsedKeys used not None, dict peers not None, read: object, *,
        double quarantine, uint64_t most_quarantined, uint64_t inline, uint64_t large,
        uint64_t shared, uint64_t piece, Py_ssize_t few, int most_failures, Py_ssize_t most,
        double timeout, bint sealed, bytes head not None, Py_ssize_t most_metadata,
        is_debugging: object, report: object
    ):
        self.reactor = reactor
        self.agent = agent
        self.registry = registry
        self.collector = collector
        self.used = used
        self.peers = peers
        self.read = read
        self.texts = {}
        self.quarantine = quarantine
        self.most_quarantined = most_quarantined
        self.inline_bytes = inline
        self.large = large
        self.shared = shared
        self.piece = piece
        self.few = few
        self.most_failures = most_failures
        self.most = most
        self.timeout = timeout
        self.sealed = sealed
        self.head = head
        self.most_metadata = most_metadata
        self.is_debugging = is_debugging
        self.report = report

    cdef bint is_free(self) except -1:
        """Whether NIXL would not keep this thread waiting."""
        if self.closed or self.reactor.generation != fork_generation():
            return False
        self.collector.run(False)
        return (  # after what ran then
            not self.closed and peek_count(&self.reactor.core.large_count) == 0
            and not self.agent.keeps_busy()
        )

    cdef Operation offer(
        self, Local local, bytes key, double timeout, bint writable, uint64_t transfers
    ):
        """Register memory, and wait for a peer's notification that it has been read or written.

        Parameters
        ----------
        local : Local
            The memory.
        key : bytes
            The notification key.
        timeout : float
            Seconds after which the operation fails; infinity for never.
        writable : bool
            Whether the peer writes; else it reads.
        transfers : int
            As for `Reactor.passive`.

        Returns
        -------
        Operation or None
            None where this is for the patient way.

        Raises
        ------
        RefusedError
            NIXL refuses to register the memory.
        """
        cdef Hold hold
        cdef Operation operation
        if (
            not self.is_free()
            or peek_count(&self.reactor.core.census.quarantined_bytes) >= self.most_quarantined
        ):
            return None
        self.registry.debugging = self.is_debugging()
        hold = Hold(self.registry, local._memory, local.regions.nbytes)
        try:
            hold.acquire(local.registered, local.mem_type, local._memory, False)
        except _UNUSUAL:
            return None
        operation = self.reactor.passive(key, self.quarantine, writable, hold, transfers)
        if not operation.listen(timeout):
            return None
        if self.registry.debugging:
            self.report(operation, "writable" if writable else "readable", hold.nbytes, None)
        return operation

    cpdef tuple described(self, str text):
        """Return a peer's metadata of its wire form, as it is and parsed.

        Peers hand out the same memory again and again: what is short is remembered when it comes
        for the second time; the patient way asks twice. Most of what comes once never comes again,
        and would only be work for the garbage collector.
        """
        cdef tuple found = self.texts.get(text)
        cdef Py_hash_t mark
        cdef Py_hash_t* before
        if found is None:
            found = self.plainly(text)
            if found is None:
                found = self.read(text)
            if len(text) <= SHORT and len(<bytes>found[0]) <= SHORT:
                mark = hash(text)
                before = &self.seen[mark & (MOST_SEEN - 1)]
                if before[0] != mark:
                    before[0] = mark
                else:
                    if len(self.texts) >= MOST_TEXTS:
                        self.texts = {}
                    self.texts[text] = found
        return found

    cdef tuple plainly(self, str text):
        """Do so for what this package has written, where nothing is wrong with it; else None."""
        cdef bytes blob = blob_of(text, self.most_metadata)
        if blob is None:
            return None
        try:
            described = parse(blob)
        except ValueError:
            return None
        for section in described.sections:
            if contradicts(section.regions):
                return None
        return blob, described

    @property
    def remembered(self) -> int:
        """How many texts."""
        return len(self.texts)

    cdef Plan plan(self, int kind, object metadata, Local local, double timeout, bint begins):
        """Return what a transfer is about, where the peer is known and nothing is unusual or wrong.

        Parameters
        ----------
        kind : int
            NIXL's: 0 to read, 1 to write.
        metadata : RdmaMetadata
            The peer's.
        local : Local
            Memory of this process.
        timeout : float
            Seconds after which it fails; infinity for never.
        begins : bool
            Whether it begins at once.
        """
        cdef PeerState peer
        cdef Regions remote
        cdef bytes blob
        cdef int mem_type
        descriptors = metadata.descriptors
        key = metadata.notification_key
        if (
            metadata.operation_kind != kind + 1
            or type(descriptors) is not list
            or local.regions is not local.registered
            or type(key) is not str
            or not 0 < len(<str>key) <= LONGEST_KEY
            or not (<str>key).isascii()
        ):
            return None
        plain = of_list(<list>descriptors)
        if plain is None:
            return None
        device, remote = plain
        if local.regions.mismatch(remote) >= 0:
            return None
        blob, described = self.described(metadata.nixl_metadata)
        found = self.peers.get(described.agent)
        if found is None:
            return None
        peer = found
        if begins:
            self.herald(peer)
        mem_type = 0 if device == b"cpu" else 1
        if not (peer.knows(blob, described) and names(described.sections, remote, mem_type)):
            return None
        if kind and remote.count > 1 and within(remote) is not None:
            return None
        # Of another process's memory the addresses say nothing, not even where it is shared.
        if peer.here and mem_type == local.mem_type:
            if kind:
                overlap = between(local.regions, remote)
            else:
                overlap = between(remote, local.regions)
            if overlap is not None:
                return None
        return Plan(
            kind, local, remote, mem_type, described, blob, (<str>key).encode("ascii"), timeout
        )

    cdef Operation begin(self, Plan plan):
        """Start a transfer; or return None where it is for the patient way. Raises as `offer`."""
        cdef PeerState peer
        cdef Hold hold
        cdef Operation operation = None
        cdef Local local = plan.local
        cdef uint64_t nbytes = local.regions.nbytes
        cdef bint by_lanes
        if not self.is_free():
            return None
        name = plan._described.agent
        found = self.peers.get(name)
        if found is None:
            return None
        peer = found
        if not peer.knows(plan.blob, plan._described):
            return None
        by_lanes = self.shares(plan, peer)
        if by_lanes and self.lanes is None:
            return None  # they take patience to open
        by_lanes = by_lanes and len(self.lanes) > 0
        self.registry.debugging = self.is_debugging()
        hold = Hold(self.registry, local._memory, nbytes)
        # Nothing of Python runs between this look and the count: nobody takes the peer down.
        if not peer.is_ready():
            return None
        hold.peer = peer
        peer.in_flight += 1
        if not self.used.claim(plan.key):
            hold.end()
            return None
        try:
            self.herald(peer)  # a plan may be old, or made elsewhere
            operation = self.reactor.active(
                peer.alias, peer.identity, peer.near, plan.key, peer.told_as, peer.reliable,
                self.quarantine, hold
            )
            if not by_lanes:
                add(
                    operation, hold, None, peer.alias, plan.kind, local.regions, local.mem_type,
                    plan.remote, plan.remote_mem, local.registered, local._memory, False, False
                )
            elif not self.share(operation, plan, hold):
                return None
            operation.start(plan.timeout, nbytes <= self.inline_bytes, nbytes > self.large)
            if self.registry.debugging:
                self.report(operation, "write" if plan.kind else "read", nbytes, name)
            # If it has ended meanwhile, what it held is free again: its addresses come back soon.
            self.collector.run(False)
            return operation
        except RefusedError:
            if by_lanes:
                return None  # the connection's agent may do it
            raise
        except _UNUSUAL:
            return None
        finally:
            # Whatever comes: what was started keeps what it holds.
            if operation is None or not operation.is_started:
                if operation is not None:
                    operation.discard()
                hold.release()
                self.used.give_back(plan.key)

    cdef void herald(self, PeerState peer) noexcept:
        """Wake a peer on this host for a transfer that is about to begin.

        It is up when it is told; and it may have to look for the transfer to go on. One of this
        process would be in the way: who has to wait rings it.
        """
        if not peer.here and self.reactor.generation == fork_generation():
            announce(self.reactor.core, peer.bell, False)

    cpdef bint shares(self, Plan plan, PeerState peer) except -1:
        """Whether a transfer is for lanes, if there are any: a long copy within this host."""
        cdef Regions regions = plan.local.regions
        cdef Py_ssize_t theirs = 0
        if (
            not peer.near
            or regions.nbytes < self.shared
            or regions.nbytes < self.piece * <uint64_t>regions.count
            or plan.local.mem_type != HOST
            or plan.remote_mem != HOST
            or peer.lanes_failed >= self.most_failures
        ):
            return False
        for section in plan._described.sections:
            theirs += len(section.regions)
        return theirs <= self.few

    cdef bint share(self, Operation operation, Plan plan, Hold hold) except -1:
        """Add to an operation a part for each lane; return False where that takes patience.

        What is registered as a whole here is so there, however many rows are in it.
        """
        cdef Local local = plan.local
        cdef list lanes = self.lanes
        cdef list memory = [local._memory]
        cdef list holds = []
        cdef Py_ssize_t held
        cdef Lane lane
        cdef Hold its
        cdef PeerState peer
        # All are looked at before any is given something, which would have to be taken back.
        for lane, registry, peers in lanes:
            its = Hold(registry)
            hold.add(its)
            holds.append(its)
            found = (<dict?>peers).get(plan._described.agent)
            if found is None:
                return False
            peer = found
            # Its keys are for all memory, so that nothing which was loaded before can hide it.
            if lane.agent.keeps_busy() or not peer._has_keys_of(plan._described):
                return False
            # Nothing of Python runs between this look and the count, as in `begin`.
            if not peer.is_ready():
                return False
            its.peer = peer
            peer.in_flight += 1
        ours, theirs = local.regions.split(len(lanes)), plan.remote.split(len(lanes))
        for (lane, _, _), its, here, there in zip(lanes, holds, ours, theirs, strict=True):
            held = hold.held.count
            hold.cover(here, local.mem_type, False)
            rows = hold.rows(held)
            if rows:
                # The lane's registrations keep the memory, too: they may go later.
                its.acquire(Regions(rows), local.mem_type, memory * len(rows), False)
            add(
                operation, its, lane, its.peer.alias, plan.kind, here, local.mem_type, there,
                plan.remote_mem, here, memory, False, False
            )
        return True

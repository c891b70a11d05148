"""Builds the requests of a transfer, whose registrations outlive them."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport free
from libc.string cimport memset, strdup

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.capi cimport check
from nixl_connect._native.census cimport READING, WRITING
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.hold cimport Hold
from nixl_connect._native.lane cimport Lane
from nixl_connect._native.operation cimport Operation
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.record cimport MOST_PARTS, Part, Record
from nixl_connect._native.registration cimport Registration, Told, let_go, own
from nixl_connect._native.registry cimport BRIEF, NOT_REGISTERED, STRETCH, Registry
from nixl_connect._native.status cimport INITIALIZED, advance

from nixl_connect._native.agent import AgentForkedError
from nixl_connect._native.lock import NotQuickError


class NotRegisteredError(Exception):
    """The agent has not registered memory of its own."""


def add_part(
    Operation operation not None, Hold hold not None, lane: Lane | None, bytes peer not None,
    int kind, Regions local not None, int local_mem, Regions remote not None, int remote_mem, *,
    Regions registered not None, list owners, bint within, bint patient
) -> None:
    """Add to an operation what to transfer: one request, of its connection's agent or of a lane's.

    NIXL picks, for each row, any registration that covers it, and the request refers to that
    one for as long as it lives. So all that cover a row are held, from before any could leave.
    Within this agent that is so on both sides, and the memory of both is here: what is held
    keeps it alive, too, whatever becomes of the passive operation.

    Parameters
    ----------
    operation : Operation
        Not started.
    hold : Hold
        Takes the registrations, which are those of its agent.
    lane : Lane or None
        Where to transfer it; each part of an operation on another lane.
    peer : bytes
        What that agent calls the peer.
    kind : int
        0 to read, 1 to write.
    local, remote : Regions
        What is transferred, row by row, within registered regions.
    local_mem, remote_mem : int
        Their memory types.
    registered : Regions
        What to register for the local ones.
    owners : list or None
        What keeps that alive, see `Hold.acquire`.
    within : bool
        Whether the peer is this agent.
    patient : bool
        Whether to register what takes long, and to wait for others.

    Raises
    ------
    NativeError
        NIXL refuses the transfer.
    RefusedError
        NIXL refuses to register the memory.
    NotRegisteredError
        The peer is this agent, and has not registered the remote regions.
    NotQuickError
        It takes patience, and there is none.
    """
    add(
        operation, hold, lane, peer, kind, local, local_mem, remote, remote_mem, registered, owners,
        within, patient
    )


cdef int add(
    Operation operation, Hold hold, Lane its, bytes peer, int kind, Regions local, int local_mem,
    Regions remote, int remote_mem, Regions registered, list owners, bint within, bint patient
) except -1:
    """Do it: see `add_part`."""
    cdef int rc = 0
    cdef bint entered = False
    cdef const char* name = peer
    cdef Registry registry = hold.registry
    cdef Registration* made = NULL
    cdef Registration* theirs = NULL
    cdef Registration* over = NULL
    cdef Told told, gone, kept
    cdef int refused = 0
    cdef Agent agent = operation.agent if its is None else its.agent
    if operation.is_started or operation.record.part_count == MOST_PARTS:
        raise RuntimeError("the operation takes no more parts")
    if operation.generation != fork_generation():
        raise AgentForkedError
    cdef Record* record = operation.record
    cdef Part* part = &record.parts[record.part_count]
    part.peer = strdup(name)
    if part.peer is NULL:
        raise MemoryError
    part.agent = agent.handle
    try:
        if within and local_mem == remote_mem:
            # What is registered for one side may hide what the other one has.
            registered = Regions.join([registered, remote])
        while not entered:
            memset(&told, 0, sizeof(Told))
            memset(&gone, 0, sizeof(Told))
            memset(&kept, 0, sizeof(Told))
            with nogil:
                entered = registry.enter(STRETCH if patient else BRIEF)
                if entered:
                    over = registry.tidy(&gone, &kept)
                    if within and not registry.holds(remote, remote_mem):
                        rc = NOT_REGISTERED
                    if rc == 0:
                        rc = registry.take(
                            registered, local_mem, &hold.held, patient, &made, &told
                        )
                    if rc == 0 and within and local_mem != remote_mem:
                        rc = registry.take(
                            remote, remote_mem, &hold.held, patient, &theirs, &told
                        )
                    if rc == 0:
                        rc = agent.create_request(
                            kind, local, local_mem, remote, remote_mem, name, &part.request
                        )
                        refused = rc
                    if rc == 0:
                        rc = registry.cover(local, local_mem, &hold.held)
                    if rc == 0 and within:
                        rc = registry.cover(remote, remote_mem, &hold.held)
                    registry.leave()
            if not entered:
                if not patient:
                    raise NotQuickError
                PyErr_CheckSignals()
        own(made, owners)
        let_go(over)
        registry.say(&gone, &kept)
        check(refused, "create_xfer_req")
        if rc == NOT_REGISTERED:
            raise NotRegisteredError
        if rc:
            registry.fail(rc, &told)
    except BaseException:
        free(part.peer)
        part.peer = NULL
        raise
    registry.say_made(&told)
    record.kind = WRITING if kind else READING
    record.writes = kind != 0
    record.nbytes += local.nbytes
    part.record = record
    if its is not None:
        part.lane = its.state
        operation.lanes = [its] if operation.lanes is None else [*operation.lanes, its]
    record.part_count += 1
    advance(&record.status, INITIALIZED)
    return 0

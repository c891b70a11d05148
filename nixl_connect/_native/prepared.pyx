"""Transfers that are posted again and again: one request, many posts.

Such an operation stays INITIALIZED between its posts, and its request belongs to whoever calls
here: one thread at a time, which the caller sees to. It ends like any other: `conclude` announces
it as complete, `give_up` leaves it to the completion thread, which drains what is in flight, tells
the peer and lets go of the request.

While a post is in flight the operation is counted as active, so that closing waits for it.
"""

from libc.stdint cimport int64_t

from nixl_connect._native.agent cimport AGENT_CLOSED, AGENT_FORKED
from nixl_connect._native.capi cimport NIXL_IN_PROGRESS, NIXL_SUCCESS
from nixl_connect._native.census cimport REPEATED, enter, leave, note
from nixl_connect._native.core cimport Core, finish, rouse
from nixl_connect._native.operation cimport Operation, deadline_of
from nixl_connect._native.posix cimport (
    now_ns,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    relax,
    usleep,
)
from nixl_connect._native.record cimport GONE, Record, retain_record
from nixl_connect._native.status cimport CANCELLED, COMPLETE, ERRORED, IN_PROGRESS, advance
from nixl_connect._native.transfer cimport (
    LOOK,
    announce,
    begin,
    has_gone,
    is_missing,
    progress_of,
    settle,
)

from enum import IntEnum

from nixl_connect._native.agent import AgentClosedError, AgentForkedError


class Outcome(IntEnum):
    """What may become of a post, beside NIXL's statuses."""

    PEER_GONE = GONE


cdef enum:
    # Sleeps between looks at what takes long, in microseconds, the shortest and the longest.
    FIRST_NAP = 50
    LONGEST_NAP = 5000


cdef int _post(Core* core, Record* record, int64_t until, bint again) noexcept nogil:
    """Post, or (`again` False) go on waiting; return NIXL's status, or GONE."""
    cdef unsigned int turns = 0
    cdef unsigned int nap = FIRST_NAP
    cdef int64_t spin_until = 0
    cdef int64_t now
    cdef int rc = NIXL_IN_PROGRESS
    pthread_mutex_lock(&core.lock)
    if core.stopping:
        again = False
    elif not record.counted:
        _enter(core, record)
    pthread_mutex_unlock(&core.lock)
    if not record.counted:
        return AGENT_CLOSED
    if again:
        rc = begin(core, record)
    while rc == NIXL_IN_PROGRESS and not core.stopping:
        rc = progress_of(core, record)
        now = now_ns()
        if rc != NIXL_IN_PROGRESS or now >= until:
            break
        if is_missing(core, record, now):
            return GONE  # but in flight
        announce(core, record.bell)  # the peer may have to look, too
        if spin_until == 0:
            spin_until = now + LOOK if again else now
        if now < spin_until:
            relax(&turns)
        else:
            usleep(nap)
            nap = min(nap + nap // 2, <unsigned int>LONGEST_NAP)
    if rc == NIXL_SUCCESS and has_gone(core, record):
        rc = GONE
    if rc != NIXL_IN_PROGRESS:
        pthread_mutex_lock(&core.lock)
        record.counted = False
        core.active_count -= 1
        core.large_count -= record.large
        note(&core.census, record, COMPLETE if rc == NIXL_SUCCESS else ERRORED)
        leave(&core.census, record)
        pthread_mutex_unlock(&core.lock)
    return rc


cdef void _enter(Core* core, Record* record) noexcept nogil:
    """Count it as active. Lock held."""
    record.kind = REPEATED
    record.counted = True
    core.active_count += 1
    core.large_count += record.large
    enter(&core.census, record)


cdef void _enlist(Core* core, Record* record) noexcept nogil:
    """Make it an operation that is about to end. Lock held."""
    retain_record(record)
    core.waiting += 1
    if not record.counted:
        _enter(core, record)
    record.posted = advance(&record.status, IN_PROGRESS)


def post(Operation operation not None, patience: float, bint large, bint again) -> int:
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
    cdef int64_t until = deadline_of(patience)
    cdef int rc
    if again:
        operation.record.large = large
    with nogil:
        rc = operation.agent.enter()
        if rc == 0:
            rc = _post(operation.core, operation.record, until, again)
            operation.agent.leave()
    if rc == AGENT_CLOSED:
        raise AgentClosedError
    if rc == AGENT_FORKED:
        raise AgentForkedError
    return rc


def conclude(Operation operation not None) -> None:
    """Release the request and tell the peer that its operation is complete. Nothing in flight.

    What it held is to be collected.
    """
    cdef int rc
    if operation.record.counted or operation.is_started:
        raise RuntimeError("a transfer is in flight, or it has ended")
    with nogil:
        rc = operation.agent.enter()
        if rc == 0:
            pthread_mutex_lock(&operation.core.lock)
            _enlist(operation.core, operation.record)
            pthread_mutex_unlock(&operation.core.lock)
            settle(operation.core, operation.record, NIXL_SUCCESS, True)
            operation.agent.leave()
    if rc == AGENT_CLOSED:
        raise AgentClosedError
    if rc == AGENT_FORKED:
        raise AgentForkedError
    operation.is_started = True


def give_up(Operation operation not None, int reason, bint failed) -> bool:
    """End it as cancelled or failed. Makes no call to NIXL: the completion thread does the rest.

    Returns
    -------
    bool
        False, and nothing, where that thread is gone and nothing is in flight.
    """
    if operation.is_started:
        return True  # it has ended
    cdef Core* core = operation.core
    cdef Record* record = operation.record
    cdef bint done
    cdef bint posted = record.counted or failed
    pthread_mutex_lock(&core.lock)
    done = record.counted or not core.stopped
    if done:
        if record.counted:
            note(&core.census, record, ERRORED if failed else CANCELLED)
        _enlist(core, record)
        record.posted = posted
        finish(core, record, ERRORED if failed else CANCELLED, reason, 0)
        if not core.stopped:  # else nobody looks at it again: it and the memory stay
            record.next = core.posted
            core.posted = record
            core.looked_until = 0
            rouse(core)
        operation.is_started = True
    pthread_mutex_unlock(&core.lock)
    return done

"""Transfers that are posted again and again: one request, many posts.

Such an operation stays INITIALIZED between its posts, and its request belongs to whoever calls
here: one thread at a time, which the caller sees to. It ends like any other: `conclude` announces
it as complete, `give_up` leaves it to the completion thread, which drains what is in flight, tells
the peer and lets go of the request.

While a post is in flight the operation is counted as active, so that closing waits for it.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from nixl_connect._native.agent cimport AGENT_CLOSED, AGENT_FORKED
from nixl_connect._native.capi cimport NIXL_IN_PROGRESS, NIXL_SUCCESS
from nixl_connect._native.census cimport REPEATED, enter, leave, note
from nixl_connect._native.core cimport Core, finish, rouse
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.handle cimport Transfer
from nixl_connect._native.operation cimport Operation, deadline_of
from nixl_connect._native.ordinary cimport Ordinary
from nixl_connect._native.peer cimport PeerState
from nixl_connect._native.posix cimport (
    now_ns,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    relax,
    usleep,
)
from nixl_connect._native.record cimport GONE, REASON_LOCAL, Record, retain_record
from nixl_connect._native.span cimport have_streams
from nixl_connect._native.status cimport CANCELLED, COMPLETE, ERRORED, IN_PROGRESS, advance
from nixl_connect._native.transfer cimport (
    LOOK,
    announce,
    begin,
    has_gone,
    is_missing,
    progress_of,
    say_moving,
    settle,
)

from enum import IntEnum

from nixl_connect._native.agent import AgentClosedError, AgentForkedError


class Outcome(IntEnum):
    """What may become of a post, beside NIXL's statuses."""

    PEER_GONE = GONE
    CLOSED = AGENT_CLOSED
    FORKED = AGENT_FORKED


cdef enum:
    # Sleeps between looks at what takes long, in microseconds, the shortest and the longest.
    FIRST_NAP = 50
    LONGEST_NAP = 5000
    # How long a thread waits at a stretch, in nanoseconds: then signals are seen.
    STRETCH = 50_000_000


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
    if again and record.near and record.say_at != INT64_MAX:
        say_moving(core, record)  # once: the peer waits for all that is to come
    if again:
        rc = begin(core, record)
    while rc == NIXL_IN_PROGRESS and not core.stopping:
        rc = progress_of(core, record)
        now = now_ns()
        if rc != NIXL_IN_PROGRESS or now >= until:
            break
        if is_missing(core, record, now):
            return GONE  # but in flight
        announce(core, record.bell, False)  # the peer may have to look, too
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


@cython.auto_pickle(False)
cdef class Prepared:
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

    cdef Ordinary ordinary
    cdef public Operation _native
    cdef public PeerState _peer
    cdef readonly double _timeout
    cdef bint fenced
    cdef bint large
    cdef bint taken     # somebody's turn; changed under the GIL, in one step

    def _set_up(self, Transfer operation not None, uint64_t large) -> None:
        """Take what it is about from an operation that has not begun.

        Parameters
        ----------
        large : int
            Bytes of a transfer from which on NIXL may take milliseconds for it at a stretch.
        """
        self.ordinary = operation.ordinary
        self._timeout = operation._timeout
        self.fenced = have_streams(operation._descriptors)
        self.large = operation._local.regions.nbytes > large

    def _acquire(self) -> bool:
        """Take the turn, unless somebody has it; return whether that was so.

        It may be given back by another thread.
        """
        if self.taken:
            return False
        self.taken = True
        return True

    def _release(self) -> None:
        """Give the turn back."""
        self.taken = False

    def transfer_blocking(self, timeout: object = None) -> None:
        """Move the bytes, and block until all have arrived: the blocking form of `transfer`."""
        cdef double patience = self._timeout if timeout is None else self._patience(timeout)
        cdef int64_t end = deadline_of(patience)
        cdef int rc
        # Nothing of Python runs between these looks and the count: nobody ends the operation, or
        # takes the peer down.
        cdef Operation operation = self._native
        cdef PeerState peer = self._peer
        if (
            self.fenced or self.taken or operation is None or self.ordinary.closed
            or operation.generation != fork_generation() or not peer.is_ready()
        ):
            self._transfer_patiently(patience)
            return
        self.taken = True
        peer.in_flight += 1
        operation.record.large = self.large
        with nogil:
            rc = operation.agent.enter()
            if rc == 0:
                rc = _post(operation.core, operation.record, min(end, now_ns() + STRETCH), True)
                operation.agent.leave()
        if rc != NIXL_SUCCESS:
            try:
                self._go_on(rc, end / 1e9)
            except BaseException:
                self._break_off(REASON_LOCAL)  # nothing, where `_go_on` has
                raise
        peer.count_out()
        self.taken = False


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

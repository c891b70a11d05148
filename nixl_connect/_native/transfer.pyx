"""Transfers: started, cancelled, ended.

A transfer is posted without NIXL's own notification. Whoever sees its end tells the peer: the key
when the operation completes, another message when it had been given up.

On one host the key goes to the peer's doorbell. Where there is none, or it is full, it goes through
a second agent, the messenger. NIXL ends each transfer with a flush of the connection, and where a
message went over the same connection before, UCX's flush waits until the peer has seen it: a peer
that naps would hold up the next transfer.

Within a host UCX moves memory by the number of the peer's process, of whoever has it now: that may
be another process, or another program in the same one. So a peer that was met on this host has to
have its doorbell before it is written to, and after it was read.
"""

from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from nixl_connect._native.bell cimport (
    FULL,
    HEARD,
    NOBODY_THERE,
    UNSAID,
    Address,
    Heard,
    ring,
    tell,
    tell_mover,
)
from nixl_connect._native.capi cimport NIXL_IN_PROGRESS, NIXL_SUCCESS
from nixl_connect._native.atomic cimport (
    atomic_load,
    atomic_store,
    peek_count,
    peek_int,
    peek_list,
)
from nixl_connect._native.census cimport enter, leave, quarantine
from nixl_connect._native.core cimport (
    LONGEST_NAP,
    finish,
    is_there,
    leave_table,
    retire,
    rouse,
    rouse_soon,
)
from nixl_connect._native.here cimport tell_here
from nixl_connect._native.lane cimport hand_over
from nixl_connect._native.posix cimport (
    now_ns,
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    relax,
)
from nixl_connect._native.record cimport (
    BROKEN_PREFIX,
    BROKEN_PREFIX_SIZE,
    CANCELLED_PREFIX,
    CANCELLED_PREFIX_SIZE,
    FAILED_PREFIX,
    FAILED_PREFIX_SIZE,
    GONE,
    MOST_PARTS,
    MOVES_PREFIX,
    MOVES_PREFIX_SIZE,
    REASON_CLOSED,
    REASON_NONE,
    REASON_NOT_TOLD,
    REASON_PEER_LOST,
    REASON_TRANSFER,
    STAGE_CLEAN,
    Part,
    release_record,
    retain_record,
)
from nixl_connect._native.status cimport (
    CANCELLED,
    COMPLETE,
    ERRORED,
    IN_PROGRESS,
    advance,
    is_final,
    read_status,
)

cdef enum:
    # After this many nanoseconds a peer that was rung may have stopped to look.
    AGAIN = 150_000
    # How long a message may wait, where a peer is slow to take it, for somebody to look.
    ERRAND = 2_000_000
    # How long a peer that was there is taken to be there, in nanoseconds: a program that takes its
    # place needs longer to be started, and has no memory of its own before.
    PROOF = 100_000
    # How often to look for the peer of what is still in flight, and after how long to tell one of
    # another host that it is; after how long to tell one of this host who makes a small transfer,
    # and how often the other that it goes on.
    MISSING = 50_000_000
    SAY = 1_000_000_000


cdef void announce(Core* core, Address bell, bint ended) noexcept nogil:
    """Ring a peer's doorbell, unless it has just been rung and looks. Lock not held.

    `ended` says that it has been told, else it may have to look.
    """
    cdef int64_t now = now_ns()
    pthread_mutex_lock(&core.lock)
    if core.bell >= 0 and (
        now >= core.last_rung + AGAIN
        or core.last_peer.a != bell.a
        or core.last_peer.b != bell.b
    ):
        core.last_rung = now
        core.last_peer = bell
        ring(core.bell, bell, ended)
    pthread_mutex_unlock(&core.lock)


cdef bint has_gone(Core* core, Record* record) noexcept nogil:
    """Whether a peer that was met on this host is not there any more. For the record's owner.

    Called before a write is posted, and where a transfer is over, before anybody is told so. Lock
    not held.
    """
    cdef int64_t now
    if record.near and not record.gone:
        now = now_ns()
        if now >= record.proved + PROOF:
            record.proved = now
            record.gone = not is_there(core, record.bell)
    return record.gone


cdef bint is_missing(Core* core, Record* record, int64_t now) noexcept nogil:
    """Whether the peer of a transfer that takes long has gone: looks now and then. As `has_gone`.

    UCX sees that by itself, unless somebody else has its sockets.
    """
    return (
        record.near
        and not record.gone
        and now >= max(record.begun, record.proved) + MISSING
        and has_gone(core, record)
    )


cdef bint _tell(Core* core, Record* record, const char* prefix, size_t size) noexcept nogil:
    """Tell the peer what became of a transfer; return whether NIXL took the message.

    That it goes on is for the messenger to say: on the transfer's own connection it would come
    after the bytes.
    """
    cdef bint apart = prefix == MOVES_PREFIX and record.told_as is not NULL
    cdef int rc
    cdef char* message = <char*>malloc(size + record.key_size)
    if message is NULL:
        return True
    memcpy(message, prefix, size)
    memcpy(message + size, record.key, record.key_size)
    rc = core.nixl.gen_notif(
        core.messenger if apart else core.agent, record.told_as if apart else record.peer,
        message, size + record.key_size, NULL,
    )
    if rc != NIXL_SUCCESS and apart:  # it has lost its connection
        rc = core.nixl.gen_notif(core.agent, record.peer, message, size + record.key_size, NULL)
    free(message)
    return rc == NIXL_SUCCESS


cdef void say_moving(Core* core, Record* record) noexcept nogil:
    """Tell a peer of this host, once, who makes a transfer that takes long, another one that it
    goes on.

    The first looks for this side's doorbell then. For the record's owner, lock not held.
    """
    cdef Heard heard = UNSAID
    if not record.near:
        _tell(core, record, MOVES_PREFIX, MOVES_PREFIX_SIZE)
        record.say_at = now_ns() + SAY
        pthread_mutex_lock(&core.lock)
        core.errands_until = max(core.errands_until, now_ns() + ERRAND)
        pthread_mutex_unlock(&core.lock)
        return
    pthread_mutex_lock(&core.lock)
    if core.named:
        heard = tell_mover(core.bell, record.bell, core.own, record.key, record.key_size)
    pthread_mutex_unlock(&core.lock)
    record.say_at = now_ns() + MISSING if heard == FULL else INT64_MAX


cdef Heard _say(Core* core, Record* record) noexcept nogil:
    """Tell a peer of this host, by its doorbell, that its transfer is complete. Lock not held.

    That is also the look whether it is still there: see `has_gone`.
    """
    cdef Heard heard = UNSAID
    if record.near:
        if tell_here(record.bell, record.key, record.key_size):
            return HEARD
        pthread_mutex_lock(&core.lock)
        if core.bell >= 0:
            heard = tell(core.bell, record.bell, record.key, record.key_size)
        pthread_mutex_unlock(&core.lock)
        if heard == UNSAID and has_gone(core, record):
            heard = NOBODY_THERE
    return heard


cdef int begin(Core* core, Record* record) noexcept nogil:
    """Post all parts; return NIXL's status, or GONE."""
    cdef int i
    cdef int rc
    if record.parts[0].lane is NULL:
        if record.writes and has_gone(core, record):
            return GONE
        pthread_mutex_lock(core.progress)
        rc = core.nixl.post_xfer_req(core.agent, record.parts[0].request, NULL)
        pthread_mutex_unlock(core.progress)
        return rc
    atomic_store(&record.unfinished, record.part_count)
    for i in range(record.part_count):
        hand_over(&record.parts[i])
    return NIXL_IN_PROGRESS


cdef int progress_of(Core* core, Record* record) noexcept nogil:
    """Return NIXL's status of what has been posted."""
    cdef int i
    cdef int rc = NIXL_SUCCESS
    if record.parts[0].lane is NULL:
        pthread_mutex_lock(core.progress)
        rc = core.nixl.get_xfer_status(core.agent, record.parts[0].request)
        pthread_mutex_unlock(core.progress)
        return rc
    if atomic_load(&record.unfinished):
        return NIXL_IN_PROGRESS
    for i in range(record.part_count):
        # An error of NIXL's comes first: something may still be in flight.
        if rc == NIXL_SUCCESS or (rc == GONE and record.parts[i].rc != NIXL_SUCCESS):
            rc = record.parts[i].rc
    return rc


cdef void release_requests(Core* core, Record* record) noexcept nogil:
    """Give up all parts, none of which is in flight."""
    cdef Part* part
    cdef int i
    for i in range(MOST_PARTS):
        part = &record.parts[i]
        if part.request is not NULL:
            core.nixl.release_xfer_req(part.agent, part.request)
            core.nixl.destroy_xfer_req(part.request)
            part.request = NULL


cdef bint _is_lost(const Record* record) noexcept nogil:
    """Whether a lane has lost the peer."""
    cdef int i
    for i in range(record.part_count):
        if record.parts[i].lost:
            return True
    return False


cdef void _linger(Core* core, Record* record) noexcept nogil:
    """Keep a failed transfer, its request and its memory, for a quarantine. Lock held."""
    quarantine(&core.census, record)
    record.deadline = now_ns() + record.quarantine
    core.next_deadline = min(core.next_deadline, record.deadline)
    record.next = core.lingering
    core.lingering = record


cdef bint settle(Core* core, Record* record, int rc, bint queue) noexcept nogil:
    """End a transfer that NIXL reports as over. Called by the record's owner, lock not held.

    With `queue` the core's reference goes to the retired list, else it is dropped. Returns whether
    it has: not where NIXL reports an error while the peer's connection stands. NIXL does so with
    the first part that fails, and knows nothing of the others.
    """
    cdef int status = ERRORED
    cdef int reason = REASON_TRANSFER
    cdef bint claimed = False
    cdef bint told = True       # by a message of NIXL's
    cdef bint lingers = False
    cdef Heard heard = UNSAID
    if rc == NIXL_SUCCESS and record.gone:
        rc = GONE
    if rc == NIXL_SUCCESS:
        # From here on a cancellation comes too late.
        pthread_mutex_lock(&core.lock)
        claimed = record.claimed = not is_final(read_status(&record.status))
        pthread_mutex_unlock(&core.lock)
    if claimed:
        release_requests(core, record)
        heard = _say(core, record)
        if heard != HEARD and heard != NOBODY_THERE:
            rc = NIXL_IN_PROGRESS
            if record.reliable:
                rc = core.nixl.gen_notif(
                    core.messenger, record.told_as, record.key, record.key_size, NULL
                )
            if rc != NIXL_SUCCESS:
                # Or the messenger has lost its connection; the transfer's own has just been good.
                rc = core.nixl.gen_notif(core.agent, record.peer, record.key, record.key_size, NULL)
        else:
            told = False
        if heard == NOBODY_THERE:
            reason = REASON_PEER_LOST
        elif rc == NIXL_SUCCESS:
            status, reason = COMPLETE, REASON_NONE
        else:
            reason = REASON_NOT_TOLD
    else:
        lingers = rc != NIXL_SUCCESS and rc != GONE and record.posted
        if rc == GONE:
            told = False
            rc = NIXL_SUCCESS  # which has nothing to say about that
        elif lingers:
            told = _tell(core, record, BROKEN_PREFIX, BROKEN_PREFIX_SIZE)
        elif read_status(&record.status) == CANCELLED:
            told = _tell(core, record, CANCELLED_PREFIX, CANCELLED_PREFIX_SIZE)
        else:
            told = _tell(core, record, FAILED_PREFIX, FAILED_PREFIX_SIZE)
        if not told or _is_lost(record):
            # The C API reports a lost peer as any other backend error; but nothing can be sent to
            # it either. UCX has then given up all that was going on with it.
            reason = REASON_PEER_LOST
            lingers = False
        lingers = lingers and record.quarantine > 0
        if not lingers:
            release_requests(core, record)
    if heard != HEARD:
        announce(core, record.bell, True)
    pthread_mutex_lock(&core.lock)
    core.last_activity = now_ns()
    core.last_rung = 0  # it has something, and stops to look: the next ring is to be heard
    if told:
        core.told += 1
        core.last_told = core.last_activity
        core.errands_until = max(core.errands_until, core.last_told + ERRAND)
    core.active_count -= 1
    if record.large:
        core.large_count -= 1
    finish(core, record, status, reason, rc)
    if lingers:
        _linger(core, record)
    elif queue:
        retire(core, record, STAGE_CLEAN)
    else:
        leave(&core.census, record)
    pthread_mutex_unlock(&core.lock)
    if not lingers and not queue:
        release_record(record)
    return not lingers


cdef size_t let_go(Core* core, int64_t now) noexcept nogil:
    """Release the failed transfers whose quarantine is over; return how many. `polling` held."""
    cdef Record** link
    cdef Record* record
    cdef Record* over = NULL
    cdef size_t count = 0
    pthread_mutex_lock(&core.lock)
    link = &core.lingering
    while link[0] is not NULL:
        record = link[0]
        if now >= record.deadline:
            link[0] = record.next
            record.next = over
            over = record
        else:
            link = &record.next
    pthread_mutex_unlock(&core.lock)
    while over is not NULL:
        record = over
        over = record.next
        release_requests(core, record)
        pthread_mutex_lock(&core.lock)
        retire(core, record, STAGE_CLEAN)
        pthread_mutex_unlock(&core.lock)
        count += 1
    return count


cdef int post(Core* core, Record* record, bint queue) noexcept nogil:
    """Post a request, unless it was cancelled before; return what it then is."""
    cdef int rc
    pthread_mutex_lock(&core.lock)
    record.posted = advance(&record.status, IN_PROGRESS)
    pthread_mutex_unlock(&core.lock)
    rc = NIXL_SUCCESS
    if record.posted:
        rc = begin(core, record)
    if rc == NIXL_IN_PROGRESS:
        return IN_FLIGHT
    return OVER if settle(core, record, rc, queue) else LINGERS


cdef bint start_active(Core* core, Record* record, bint inline_post) noexcept nogil:
    """Start a transfer: on this thread, or (`inline_post` False) on the core's.

    Returns whether it is over already, so that the record will not be collected.
    """
    cdef bint refused
    cdef int became
    cdef int64_t begun
    pthread_mutex_lock(&core.lock)
    retain_record(record)
    core.waiting += 1
    core.active_count += 1
    enter(&core.census, record)
    if record.large:
        core.large_count += 1
    core.last_activity = begun = now_ns()
    if inline_post and core.active_count == 1 and record.parts[0].lane is NULL:
        # The thread is not needed for a while. It would only get in the way of this one.
        core.looked_until = core.last_activity + 2 * LOOK
    core.next_deadline = min(core.next_deadline, record.deadline)
    refused = core.stopping and finish(core, record, CANCELLED, REASON_CLOSED, 0)
    pthread_mutex_unlock(&core.lock)
    record.say_at = begun + (SAY if record.near else MISSING)
    if record.near and (record.large or not inline_post or record.parts[0].lane is not NULL):
        say_moving(core, record)
    if inline_post or refused:
        became = post(core, record, False)
        if became != IN_FLIGHT:
            return became == OVER
    pthread_mutex_lock(&core.lock)
    if core.stopped:
        # The thread is gone and nobody will look at the request again: it and the memory stay.
        finish(core, record, CANCELLED, REASON_CLOSED, 0)
    else:
        # Again: while this thread posted, the record was in no list, and a check of deadlines may
        # have passed over it.
        core.next_deadline = min(core.next_deadline, record.deadline)
        if record.posted:
            record.next = core.posted
            core.posted = record
            rouse_soon(core, LONGEST_NAP)
        else:
            record.next = core.incoming
            core.incoming = record
            rouse(core)
    pthread_mutex_unlock(&core.lock)
    return False


cdef size_t poll_active(Core* core) noexcept nogil:
    """Look once at every transfer that is posted; return how many ended. `polling` held."""
    cdef Record** link
    cdef Record* record
    cdef size_t ended = 0
    cdef int64_t now
    cdef int rc
    if peek_list(<void**>&core.posted) is not NULL:
        pthread_mutex_lock(&core.lock)
        while core.posted is not NULL:
            record = core.posted
            core.posted = record.next
            record.next = core.active
            core.active = record
        pthread_mutex_unlock(&core.lock)
    link = &core.active
    while link[0] is not NULL:
        record = link[0]
        rc = progress_of(core, record)
        if rc == NIXL_IN_PROGRESS:
            now = now_ns()
            if record.near and is_missing(core, record, now):
                pthread_mutex_lock(&core.lock)
                finish(core, record, ERRORED, REASON_PEER_LOST, 0)  # but it is drained
                pthread_mutex_unlock(&core.lock)
            elif now >= record.say_at and (
                not record.near or not is_final(read_status(&record.status))
            ):
                say_moving(core, record)  # another host waits for what is drained, too
            link = &record.next
        else:
            link[0] = record.next
            settle(core, record, rc, True)
            ended += 1
    return ended


cdef size_t look(Core* core, int64_t until) noexcept nogil:
    """Look at the transfers in flight until one ends, on the thread that waits for it.

    A small one that a peer serves at once ends within the time that a change of threads would take.
    Leaves it to the completion thread where that is at it, after `until`, and where calls to NIXL
    may take long. Returns how many ended.
    """
    cdef size_t ended = 0
    cdef unsigned int turns = 0
    if pthread_mutex_trylock(&core.polling) == 0:
        while peek_count(&core.large_count) == 0 and not peek_int(<int*>&core.stopped):
            ended = poll_active(core)
            if ended or core.active is NULL or now_ns() >= until:
                break
            announce(core, core.active.bell, False)  # the peer may have to look, too
            relax(&turns)
        pthread_mutex_unlock(&core.polling)
    if ended == 0:
        pthread_mutex_lock(&core.lock)
        if core.active_count:
            core.looked_until = 0
            rouse(core)
        pthread_mutex_unlock(&core.lock)
    return ended


cdef bint cancel(Core* core, Record* record, int reason) noexcept nogil:
    """Cancel an operation that has not ended; return whether this call did."""
    cdef bint moved = False
    pthread_mutex_lock(&core.lock)
    if not record.claimed and finish(core, record, CANCELLED, reason, 0):
        moved = True
        if record.is_active:
            rouse(core)  # to drain it
        else:
            leave_table(core, record)
    pthread_mutex_unlock(&core.lock)
    return moved

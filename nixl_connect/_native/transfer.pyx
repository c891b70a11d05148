"""Transfers: started, cancelled, ended.

A transfer is posted without NIXL's own notification. Whoever sees its end tells the peer: the key
when the operation completes, another message when it had been given up.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from nixl_connect._native.capi cimport NIXL_IN_PROGRESS, NIXL_SUCCESS
from nixl_connect._native.core cimport finish, leave_table, retire, rouse
from nixl_connect._native.posix cimport now_ns, pthread_mutex_lock, pthread_mutex_unlock
from nixl_connect._native.record cimport (
    REASON_CLOSED,
    REASON_NONE,
    REASON_NOT_TOLD,
    REASON_PEER_LOST,
    REASON_TRANSFER,
    STAGE_CLEAN,
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

CANCELLED_PREFIX = b"nixl_connect:cancelled:"
FAILED_PREFIX = b"nixl_connect:failed:"
PROBE = b"nixl_connect:probe"


cdef bint _tell(Core* core, Record* record, const char* prefix, size_t size) noexcept nogil:
    """Tell the peer that this side gave up; return whether NIXL took the message."""
    cdef int rc
    cdef char* message = <char*>malloc(size + record.key_size)
    if message is NULL:
        return True
    memcpy(message, prefix, size)
    memcpy(message + size, record.key, record.key_size)
    rc = core.nixl.gen_notif(core.agent, record.peer, message, size + record.key_size, NULL)
    free(message)
    return rc == NIXL_SUCCESS


cdef void settle(Core* core, Record* record, int rc, bint queue) noexcept nogil:
    """End a transfer that NIXL reports as over. Called by the record's owner, lock not held.

    With `queue` the core's reference goes to the retired list, else it is dropped.
    """
    cdef int status = ERRORED
    cdef int reason = REASON_TRANSFER
    cdef bint claimed = False
    cdef bint told = True
    if rc == NIXL_SUCCESS:
        # From here on a cancellation comes too late.
        pthread_mutex_lock(&core.lock)
        claimed = record.claimed = not is_final(read_status(&record.status))
        pthread_mutex_unlock(&core.lock)
    core.nixl.release_xfer_req(core.agent, record.request)
    core.nixl.destroy_xfer_req(record.request)
    record.request = NULL
    if claimed:
        rc = core.nixl.gen_notif(core.agent, record.peer, record.key, record.key_size, NULL)
        if rc == NIXL_SUCCESS:
            status, reason = COMPLETE, REASON_NONE
        else:
            reason = REASON_NOT_TOLD
    else:
        if read_status(&record.status) == CANCELLED:
            told = _tell(core, record, CANCELLED_PREFIX, CANCELLED_PREFIX_SIZE)
        else:
            told = _tell(core, record, FAILED_PREFIX, FAILED_PREFIX_SIZE)
        if not told:
            # The C API reports a lost peer as any other backend error; but nothing can be sent to
            # it either.
            reason = REASON_PEER_LOST
    pthread_mutex_lock(&core.lock)
    core.last_activity = now_ns()
    if told:
        core.last_told = core.last_activity
    core.active_count -= 1
    finish(core, record, status, reason, rc)
    if queue:
        retire(core, record, STAGE_CLEAN)
    pthread_mutex_unlock(&core.lock)
    if not queue:
        release_record(record)


cdef bint post(Core* core, Record* record, bint queue) noexcept nogil:
    """Post a request, unless it was cancelled before; return whether it is over already."""
    cdef int rc
    pthread_mutex_lock(&core.lock)
    record.posted = advance(&record.status, IN_PROGRESS)
    pthread_mutex_unlock(&core.lock)
    rc = NIXL_SUCCESS
    if record.posted:
        if queue:
            core.posting = True
        rc = core.nixl.post_xfer_req(core.agent, record.request, NULL)
        if queue:
            core.posting = False
    if rc == NIXL_IN_PROGRESS:
        return False
    settle(core, record, rc, queue)
    return True


cdef bint start_active(Core* core, Record* record, bint inline_post) noexcept nogil:
    """Start a transfer: on this thread, or (`inline_post` False) on the core's.

    Returns whether it is over already; then the record is final and will not be collected.
    """
    cdef bint refused
    pthread_mutex_lock(&core.lock)
    retain_record(record)
    core.waiting += 1
    core.active_count += 1
    core.last_activity = now_ns()
    core.next_deadline = min(core.next_deadline, record.deadline)
    refused = core.stopping and finish(core, record, CANCELLED, REASON_CLOSED, 0)
    pthread_mutex_unlock(&core.lock)
    if (inline_post or refused) and post(core, record, False):
        return True
    pthread_mutex_lock(&core.lock)
    if core.stopped:
        # The thread is gone and nobody will look at the request again: it and the memory stay.
        finish(core, record, CANCELLED, REASON_CLOSED, 0)
    else:
        record.next = core.incoming
        core.incoming = record
        # Again: while this thread posted, the record was in no list, and a check of deadlines may
        # have passed over it.
        core.next_deadline = min(core.next_deadline, record.deadline)
        rouse(core)
    pthread_mutex_unlock(&core.lock)
    return False


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

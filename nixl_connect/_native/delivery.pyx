"""What a notification says, and to which operation: matched by its exact key."""

from libc.string cimport memcmp

from nixl_connect._native.census cimport WRITABLE
from nixl_connect._native.core cimport (
    MOST_RINGS,
    finish,
    leave_table,
    retire,
    slot,
    take_out,
)
from nixl_connect._native.posix cimport now_ns
from nixl_connect._native.record cimport (
    BROKEN_PREFIX,
    BROKEN_PREFIX_SIZE,
    CANCELLED_PREFIX,
    CANCELLED_PREFIX_SIZE,
    FAILED_PREFIX,
    FAILED_PREFIX_SIZE,
    PROBE,
    PROBE_SIZE,
    REASON_NONE,
    REASON_PEER_CANCELLED,
    REASON_PEER_FAILED,
    STAGE_CLEAN,
    Record,
)
from nixl_connect._native.status cimport CANCELLED, COMPLETE, ERRORED, is_final, read_status

cdef enum:
    # How long (nanoseconds) to expect more after what a ring had announced.
    AFTER = 5_000


cdef void _count(Core* core, Record* record, int status, bint broken) noexcept nogil:
    """Count one of several transfers with the same memory; the last ends it. Lock held."""
    if is_final(read_status(&record.status)):
        return  # it is in quarantine, and others may touch it still
    if status == COMPLETE:
        record.done += 1
        core.census.tallies[record.kind].nbytes += record.nbytes
        if record.done == record.transfers:
            finish(core, record, COMPLETE, REASON_NONE, 0)
            if record.tainted or record.kind == WRITABLE:
                # Of those that have not told yet how they ended, one may still write.
                leave_table(core, record)
            else:
                take_out(core, record)
                retire(core, record, STAGE_CLEAN)  # all have finished with the memory
    else:
        record.failed += 1
        record.tainted = record.tainted or broken


cdef bint deliver(Core* core, const char* message, size_t size) noexcept nogil:
    """Match a notification; return whether an operation waits for it. Lock held."""
    cdef int status = COMPLETE
    cdef int reason = REASON_NONE
    cdef bint broken = False
    cdef Record* record
    if size > CANCELLED_PREFIX_SIZE and memcmp(
        message, CANCELLED_PREFIX, CANCELLED_PREFIX_SIZE
    ) == 0:
        status, reason = CANCELLED, REASON_PEER_CANCELLED
        message += CANCELLED_PREFIX_SIZE
        size -= CANCELLED_PREFIX_SIZE
    elif size > FAILED_PREFIX_SIZE and memcmp(message, FAILED_PREFIX, FAILED_PREFIX_SIZE) == 0:
        status, reason = ERRORED, REASON_PEER_FAILED
        message += FAILED_PREFIX_SIZE
        size -= FAILED_PREFIX_SIZE
    elif size > BROKEN_PREFIX_SIZE and memcmp(message, BROKEN_PREFIX, BROKEN_PREFIX_SIZE) == 0:
        broken = True
        status, reason = ERRORED, REASON_PEER_FAILED
        message += BROKEN_PREFIX_SIZE
        size -= BROKEN_PREFIX_SIZE
    elif size == PROBE_SIZE and memcmp(message, PROBE, PROBE_SIZE) == 0:
        return False
    core.notified += 1
    record = slot(core, message, size)[0]
    if record is NULL:
        core.unmatched += 1
        return False
    core.last_activity = now_ns()
    core.heard = core.last_activity < core.rung_until
    core.credit = MOST_RINGS
    if not core.several:
        core.rung_until = min(core.rung_until, core.last_activity + AFTER)
    if record.transfers != 1:
        _count(core, record, status, broken)
    elif not broken:
        take_out(core, record)
        finish(core, record, status, reason, 0)
        retire(core, record, STAGE_CLEAN)  # the peer has finished with the memory
    elif finish(core, record, status, reason, 0):
        leave_table(core, record)
    return True

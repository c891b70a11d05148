"""What a notification says, and to which operation: matched by its exact key."""

from libc.stdint cimport INT64_MAX, int64_t
from libc.string cimport memcmp

from nixl_connect._native.bell cimport Address, vanished
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
    MOVES_PREFIX,
    MOVES_PREFIX_SIZE,
    PROBE,
    PROBE_SIZE,
    REASON_MOVER_LOST,
    REASON_MOVER_SILENT,
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
    # How often to look whether who moves the bytes is still there.
    MISSED = 500_000_000


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


cdef Record* _moving(Core* core, const char* key, size_t size) noexcept nogil:
    """Find the operation that ends if its one mover is lost; NULL if there is none. Lock held.

    Where several transfers may use the memory, that one is lost does not end it.
    """
    cdef Record* record = slot(core, key, size)[0]
    if record is NULL or record.transfers != 1 or is_final(read_status(&record.status)):
        return NULL
    return record


cdef void _look_at(Core* core, Record* record, int64_t when) noexcept nogil:
    """Look for a mover then, who has just been heard of. Lock held."""
    record.look_at = when
    record.doubted = False
    core.next_deadline = min(core.next_deadline, when)


cdef void note_mover(Core* core, const char* key, size_t size, Address bell) noexcept nogil:
    """Note whose doorbell to look for while a transfer goes on. Lock held."""
    cdef Record* record = _moving(core, key, size)
    if record is not NULL:
        record.near_mover = True
        record.mover = bell
        _look_at(core, record, now_ns() + MISSED)


cdef void _hear_mover(Core* core, const char* key, size_t size) noexcept nogil:
    """Note that somebody of another host still moves the bytes. Lock held."""
    cdef Record* record = _moving(core, key, size)
    if record is not NULL and not record.near_mover and core.peer_silence:
        _look_at(core, record, now_ns() + core.peer_silence)


cdef int64_t look_for_mover(Core* core, Record* record, int64_t now) noexcept nogil:
    """End an operation whose mover has gone; return when to look again. Lock held.

    Only if it is gone at two looks, MISSED apart: what it said in the end may still be on its way,
    through NIXL, or this process may have been stopped and has yet to read it.
    """
    cdef bint gone
    if record.look_at == 0 or is_final(read_status(&record.status)):
        return INT64_MAX
    if now < record.look_at:
        return record.look_at
    gone = not record.near_mover or vanished(core.probe, record.mover)
    if gone and record.doubted:
        if finish(
            core, record, ERRORED,
            REASON_MOVER_LOST if record.near_mover else REASON_MOVER_SILENT, 0
        ):
            leave_table(core, record)
        return INT64_MAX
    record.doubted = gone
    record.look_at = now + MISSED
    return record.look_at


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
    elif size > MOVES_PREFIX_SIZE and memcmp(message, MOVES_PREFIX, MOVES_PREFIX_SIZE) == 0:
        _hear_mover(core, message + MOVES_PREFIX_SIZE, size - MOVES_PREFIX_SIZE)
        return False
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

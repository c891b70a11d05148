"""The state that the completion thread shares with others, and what may be done to it.

Nothing here, nor in `record`, `transfer` and `thread`, knows Python.

Ownership. A record is referenced by its Python object and by the core. Passive records live in the
hash table until a notification, a cancellation or the end of their quarantine takes them out.
Active ones belong to the thread that posts them, and then to whoever holds `polling`; only that
owner calls NIXL with their request.

Prepared ones belong to their caller, and are in no list, until they are given up.

Locking. `lock` guards everything that two threads share and is never held across a call into NIXL,
which may take as long as the copy that it does. `polling` is held across such calls, so only the
completion thread ever waits for it. The agent's `progress`, taken last of all, keeps UCX from
noticing a dead peer between the proof that its connection stands and the load that relies on it.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from nixl_connect._native.bell cimport stands
from nixl_connect._native.census cimport REPEATED, enter, leave, note, quarantine
from nixl_connect._native.posix cimport (
    now_ns,
    pthread_cond_broadcast,
    pthread_cond_signal,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    write,
)
from nixl_connect._native.record cimport REASON_NONE, STAGE_CLEAN, retain_record
from nixl_connect._native.status cimport COMPLETE, advance, is_final, read_status
from nixl_connect._native.waker cimport Waiter, WakerState, arm, release_waker, retain_waker, wake

cdef enum:
    # How long (nanoseconds) no loop gets the doorbell where one was rung for nothing, or by its own
    # process; and where one was busy, the first time: it doubles each time, and halves each time
    # that a loop has heard what a peer had to say.
    LONGEST_WITHHELD = 1_000_000_000
    SHORTEST_WITHHELD = 10_000_000


cdef bint finish(Core* core, Record* record, int status, int reason, int error) noexcept nogil:
    """Move a record to a final status and wake its waiters. Lock held."""
    cdef Waiter* waiter
    if is_final(read_status(&record.status)):
        return False
    # Before the status, which others read without the lock. Nobody else makes a final move.
    record.reason = reason
    record.error = error
    advance(&record.status, status)
    if record.kind != REPEATED:
        note(&core.census, record, status)
    core.waiting -= 1
    while record.waiters is not NULL:
        waiter = record.waiters
        record.waiters = waiter.next
        _left(core, record, waiter)
        wake(waiter)
    if core.sleepers:
        pthread_cond_broadcast(&core.ended)
    if record.kept:
        core.poked = True
        pthread_cond_signal(&core.garbage)
    return True


# Who waits on an event loop, and the doorbell, which the loop has meanwhile: see `listening`. All
# of it with the lock held.


cdef void await_end(Core* core, Record* record, Waiter* waiter) noexcept nogil:
    """Have a wait told of a record's end, which has not come."""
    waiter.next = record.waiters
    record.waiters = waiter
    if not record.is_active:
        waiter.waker.waits += 1
        if waiter.waker.waits == 1:
            core.loops += 1
        lend_bell(core, waiter.waker)


cdef Waiter* forget_wait(Core* core, Record* record, uint64_t token) noexcept nogil:
    """Undo that, and return the wait; NULL if the end has come between."""
    cdef Waiter** link = &record.waiters
    cdef Waiter* waiter
    while link[0] is not NULL and link[0].token != token:
        link = &link[0].next
    waiter = link[0]
    if waiter is not NULL:
        link[0] = waiter.next
        _left(core, record, waiter)
    return waiter


cdef void _left(Core* core, Record* record, Waiter* waiter) noexcept nogil:
    """A wait is in a record's list no more."""
    if not record.is_active:
        # The loop keeps the doorbell: it may soon wait for more. Else the thread takes it back.
        waiter.waker.waits -= 1
        if waiter.waker.waits == 0:
            core.loops -= 1


cdef void lend_bell(Core* core, WakerState* loop) noexcept nogil:
    """Leave the doorbell to a loop that waits for peers, unless others on the connection do, too.
    """
    if core.loops > (1 if loop.waits else 0) or (
        core.listener is not NULL and core.listener != loop
    ):
        take_bell(core)
    elif (
        core.large_count == 0 and core.bell >= 0 and not core.stopping and core.sleepers == 0
        and now_ns() >= max(core.deaf_until, core.lend_after)
        and arm(loop, core.bell) and core.listener is NULL
    ):
        retain_waker(loop)
        core.listener = loop


cdef void withhold_bell(Core* core) noexcept nogil:
    """Have the thread listen for the doorbell, and no loop for a while."""
    core.vain = 0
    core.withheld = LONGEST_WITHHELD
    core.lend_after = now_ns() + LONGEST_WITHHELD
    take_bell(core)


cdef void withhold_for_now(Core* core) noexcept nogil:
    """Do so for a shorter while, of which this is not the first."""
    cdef int64_t length = min(max(2 * core.withheld, <int64_t>SHORTEST_WITHHELD),
                              <int64_t>LONGEST_WITHHELD)
    withhold_bell(core)
    core.withheld = length
    core.lend_after = now_ns() + length


cdef void take_bell(Core* core) noexcept nogil:
    """Have the thread listen for the doorbell again, if a loop does."""
    cdef WakerState* loop = core.listener
    if loop is not NULL:
        core.listener = NULL
        release_waker(loop)
        rouse(core)  # it sleeps without


cdef void retire(Core* core, Record* record, int stage) noexcept nogil:
    """Hand a record, and the core's reference with it, to whoever collects. Lock held."""
    leave(&core.census, record)
    record.stage = stage
    record.next = core.retired
    core.retired = record
    _announce(core)


cdef void _announce(Core* core) noexcept nogil:
    """Say that there is something to collect. Lock held."""
    if core.sleepers:
        pthread_cond_broadcast(&core.ended)
    if core.reaper_asleep:
        core.reaper_asleep = False
        pthread_cond_signal(&core.garbage)


cdef void rouse(Core* core) noexcept nogil:
    """Wake the thread. Lock held."""
    cdef uint64_t one = 1
    if core.asleep:
        core.asleep = False
        write(core.work, &one, 8)
    else:
        core.roused = True


cdef void poke(Core* core) noexcept nogil:
    """Wake the reaper, or make its next wait end at once. Lock not held."""
    pthread_mutex_lock(&core.lock)
    core.poked = True
    pthread_cond_signal(&core.garbage)
    pthread_mutex_unlock(&core.lock)


cdef void rouse_soon(Core* core, int64_t soon) noexcept nogil:
    """Wake the thread unless it wakes by itself soon enough for what has just begun. Lock held.

    Waking costs a system call and, on a busy machine, the core that somebody works on.
    """
    if core.asleep and core.asleep_until > now_ns() + soon:
        rouse(core)


cdef bint is_there(Core* core, Address bell) noexcept nogil:
    """Whether a doorbell is there; False once the core has stopped. Lock not held."""
    cdef bint there
    pthread_mutex_lock(&core.lock)
    there = core.probe >= 0 and stands(core.probe, bell)
    pthread_mutex_unlock(&core.lock)
    return there


# The table of passive records, by key.


cdef Record** slot(Core* core, const char* key, size_t size) noexcept nogil:
    """Return the link that holds the record of `key`, or the end of its bucket. Lock held."""
    cdef uint64_t h = 0xCBF29CE484222325ULL  # FNV-1a
    cdef size_t i
    cdef Record** link
    for i in range(size):
        h = (h ^ <unsigned char>key[i]) * 0x100000001B3ULL
    link = &core.buckets[h & (core.bucket_count - 1)]
    while link[0] is not NULL:
        if link[0].key_size == size and memcmp(link[0].key, key, size) == 0:
            break
        link = &link[0].next
    return link


cdef bint _grow(Core* core) noexcept nogil:
    """Double the table. Lock held."""
    cdef Record** old = core.buckets
    cdef size_t count = core.bucket_count
    cdef size_t i
    cdef Record* record
    cdef Record* rest
    cdef Record** link
    cdef Record** fresh = <Record**>calloc(count * 2, sizeof(Record*))
    if fresh is NULL:
        return False
    core.buckets = fresh
    core.bucket_count = count * 2
    for i in range(count):
        record = old[i]
        while record is not NULL:
            rest = record.next
            record.next = NULL
            link = slot(core, record.key, record.key_size)
            link[0] = record
            record = rest
    free(old)
    return True


cdef void take_out(Core* core, Record* record) noexcept nogil:
    """Remove a record from the table, if it is there. Lock held."""
    cdef Record** link = slot(core, record.key, record.key_size)
    if link[0] == record:
        link[0] = record.next
        core.passive_count -= 1


cdef void leave_table(Core* core, Record* record) noexcept nogil:
    """A passive record became final: retire it, or keep it through its quarantine. Lock held."""
    if record.exposed and record.quarantine > 0:
        quarantine(&core.census, record)
        record.deadline = now_ns() + record.quarantine
        core.next_deadline = min(core.next_deadline, record.deadline)
        retain_record(record)
        record.next_quarantined = core.quarantined
        core.quarantined = record
        _announce(core)
    else:
        take_out(core, record)
        retire(core, record, STAGE_CLEAN)


cdef bint finish_passive(Core* core, Record* record) noexcept nogil:
    """End an operation as complete, because its owner says so; whether this call did.

    Lock not held.
    """
    cdef bint ended
    pthread_mutex_lock(&core.lock)
    ended = finish(core, record, COMPLETE, REASON_NONE, 0)
    if ended:
        leave_table(core, record)
    pthread_mutex_unlock(&core.lock)
    return ended


cdef bint retain_passive(Core* core, Record* record) noexcept nogil:
    """Start to listen for a record's key. Returns False when out of memory or stopping."""
    cdef bint ok
    pthread_mutex_lock(&core.lock)
    ok = not core.stopping and (core.passive_count < core.bucket_count or _grow(core))
    if ok:
        retain_record(record)
        slot(core, record.key, record.key_size)[0] = record
        core.passive_count += 1
        core.waiting += 1
        enter(&core.census, record)
        core.last_activity = now_ns()
        core.next_deadline = min(core.next_deadline, record.deadline)
        rouse_soon(core, HEARD_NAP if core.heard else LONGEST_NAP)
    pthread_mutex_unlock(&core.lock)
    return ok

"""Which operations there are, and what became of those that ended: for statistics and reports."""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from nixl_connect._native.posix cimport now_ns, pthread_mutex_lock, pthread_mutex_unlock
from nixl_connect._native.record cimport release_record, retain_record
from nixl_connect._native.status cimport CANCELLED, COMPLETE, ERRORED, read_status

from nixl_connect._native.envelope import name_of


cdef void enter(Census* census, Record* record) noexcept nogil:
    """Take in an operation that begins now."""
    census.entered += 1
    record.begun = now_ns()
    record.younger = NULL
    record.older = census.youngest
    if census.youngest is NULL:
        census.oldest = record
    else:
        census.youngest.younger = record
    census.youngest = record
    record.listed = True


cdef void leave(Census* census, Record* record) noexcept nogil:
    """Strike out an operation that nobody can touch any more, if it is there."""
    if not record.listed:
        return
    record.listed = False
    if record.quarantining:
        record.quarantining = False
        census.quarantined -= 1
        census.quarantined_bytes -= record.nbytes
    if record.older is NULL:
        census.oldest = record.younger
    else:
        record.older.younger = record.younger
    if record.younger is NULL:
        census.youngest = record.older
    else:
        record.younger.older = record.older


cdef void quarantine(Census* census, Record* record) noexcept nogil:
    """Note that an operation is over, but not its memory."""
    record.quarantining = True
    census.quarantined += 1
    census.quarantined_bytes += record.nbytes


cdef void note(Census* census, Record* record, int status) noexcept nogil:
    """Note what became of an operation, or of one transfer of a prepared one."""
    cdef Tally* tally = &census.tallies[record.kind]
    cdef uint64_t ns
    cdef uint64_t us
    cdef int bucket = 0
    if status == COMPLETE:
        ns = <uint64_t>(now_ns() - record.begun)
        us = (ns + 999) // 1000
        while bucket < BUCKETS - 1 and us > 1ULL << bucket:
            bucket += 1
        tally.complete += 1
        if record.transfers == 1:
            tally.nbytes += record.nbytes  # else each of them has been counted
        tally.ns += ns
        tally.durations[bucket] += 1
    elif status == CANCELLED:
        tally.cancelled += 1
    else:
        tally.errored += 1


cdef list tallies_of(Census* seen):
    """Return the tallies of a copy, as `Reactor.tallies` describes them."""
    return [
        (
            seen.tallies[kind].complete,
            seen.tallies[kind].cancelled,
            seen.tallies[kind].errored,
            seen.tallies[kind].nbytes,
            seen.tallies[kind].ns,
            [seen.tallies[kind].durations[i] for i in range(BUCKETS)],
        )
        for kind in range(KINDS)
    ]


cdef struct Seen:
    # An operation, and of what changes under the lock how it was there.
    Record* record
    uint64_t done
    uint64_t failed
    int64_t deadline


cdef tuple _describe(Seen* seen):
    """Describe an operation. Without the lock: what else may change meanwhile is atomic."""
    cdef Record* record = seen.record
    return (
        record.id,
        record.kind,
        read_status(&record.status),
        record.nbytes,
        record.exposed,
        record.transfers,
        seen.done,
        seen.failed,
        record.begun / 1e9,
        float("inf") if seen.deadline == INT64_MAX else seen.deadline / 1e9,
        "" if record.peer is NULL else name_of(record.peer).decode("utf-8", "replace"),
    )


cdef list population_of(Census* census, pthread_mutex_t* lock):
    """Count operations by (kind, status, whether exposed), as `Reactor.population` has it."""
    cdef size_t[KINDS][ERRORED + 1][2] counts
    cdef Record* record
    memset(counts, 0, sizeof(counts))
    with nogil:
        pthread_mutex_lock(lock)
        record = census.oldest
        while record is not NULL:
            counts[record.kind][read_status(&record.status)][record.exposed] += 1
            record = record.younger
        pthread_mutex_unlock(lock)
    return [
        (kind, status, exposed, counts[kind][status][exposed])
        for kind in range(KINDS)
        for status in range(ERRORED + 1)
        for exposed in range(2)
        if counts[kind][status][exposed]
    ]


cdef list operations_of(
    Census* census, pthread_mutex_t* lock, int64_t before, size_t most
):
    """Describe the oldest operations, which began before a time, in order. Lock not held."""
    cdef Record* record
    cdef size_t count = 0
    cdef size_t i
    cdef Seen* held
    # Nothing of Python may happen under the lock: a finalizer may come, which takes it too.
    pthread_mutex_lock(lock)
    record = census.oldest
    while record is not NULL and record.begun < before and count < most:
        count += 1
        record = record.younger
    held = <Seen*>malloc(max(count, 1) * sizeof(Seen))
    if held is not NULL:
        record = census.oldest
        for i in range(count):
            retain_record(record)
            held[i] = Seen(record, record.done, record.failed, record.deadline)
            record = record.younger
    pthread_mutex_unlock(lock)
    if held is NULL:
        raise MemoryError
    try:
        return [_describe(&held[i]) for i in range(count)]
    finally:
        for i in range(count):
            release_record(held[i].record)
        free(held)

"""Which operations there are, and what became of those that ended: for statistics and reports."""

from nixl_connect._native.posix cimport now_ns
from nixl_connect._native.status cimport CANCELLED, COMPLETE


cdef void enter(Census* census, Record* record) noexcept nogil:
    """Take in an operation that begins now."""
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
        tally.nbytes += record.nbytes
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

"""Which operations there are, and what became of those that ended."""

from libc.stdint cimport int64_t, uint64_t

from nixl_connect._native.posix cimport pthread_mutex_t
from nixl_connect._native.record cimport Record

cdef enum:
    # Kinds of operations; the last is the single transfers of prepared ones.
    READABLE = 0
    WRITABLE = 1
    READING = 2
    WRITING = 3
    REPEATED = 4
    KINDS = 5
    # By the microseconds that they took: up to 1, 2, 4, ... 2^(BUCKETS - 2), and longer.
    BUCKETS = 30

cdef struct Tally:
    uint64_t complete
    uint64_t cancelled
    uint64_t errored
    uint64_t nbytes             # of the complete ones
    uint64_t ns                 # that these took, and how many how long
    uint64_t[BUCKETS] durations

# Guarded by the core's lock, as are `kind` to `younger` of a record.
cdef struct Census:
    Record* oldest
    Record* youngest
    uint64_t entered            # how many there have been
    Tally[KINDS] tallies
    uint64_t quarantined        # operations in quarantine
    uint64_t quarantined_bytes

cdef void enter(Census* census, Record* record) noexcept nogil
cdef void leave(Census* census, Record* record) noexcept nogil
cdef void quarantine(Census* census, Record* record) noexcept nogil
cdef void note(Census* census, Record* record, int status) noexcept nogil
cdef list tallies_of(Census* seen)
cdef list population_of(Census* census, pthread_mutex_t* lock)
cdef list operations_of(
    Census* census, pthread_mutex_t* lock, int64_t before, size_t most
)

"""The state that the completion thread shares with others, and what may be done to it."""

from libc.stdint cimport int64_t, uint64_t

from nixl_connect._native.capi cimport Api
from nixl_connect._native.posix cimport pthread_cond_t, pthread_mutex_t, pthread_t
from nixl_connect._native.record cimport Record

cdef struct Core:
    const Api* nixl
    void* agent                 # borrowed: outlives the thread
    void* notifications         # a NIXL notification map, the thread's own
    pthread_t thread
    pthread_mutex_t lock
    pthread_cond_t work         # the thread sleeps here
    pthread_cond_t ended        # blocking waiters and collectors sleep here
    pthread_cond_t garbage      # the reaper sleeps here
    bint stopping
    bint cancelling             # while stopping: end every operation
    bint stopped                # the thread is gone
    bint asleep
    bint posting                # the thread is in a post; a hint, not guarded
    bint reaper_asleep
    bint poked                  # Python has work for its reaper
    int sleepers                # threads in `ended`
    Record* incoming            # to be posted, or already posted, by the thread
    Record* retired             # ended for good, to be collected
    Record* quarantined         # in quarantine since the last collection
    Record** buckets            # passive records by key
    size_t bucket_count
    size_t passive_count        # records in `buckets`
    size_t active_count         # records incoming or in the thread's own list
    size_t waiting              # records that are not final
    Record* active              # the thread's own
    int64_t last_activity
    int64_t last_told           # when a notification was last sent
    int64_t next_deadline       # no deadline is earlier
    int64_t drain_until         # when stopping: give up on active records then
    uint64_t notified           # notifications received
    uint64_t unmatched          # of them, those that no operation waited for

# All but the last with the lock held.
cdef bint finish(Core* core, Record* record, int status, int reason, int error) noexcept nogil
cdef void retire(Core* core, Record* record, int stage) noexcept nogil
cdef void rouse(Core* core) noexcept nogil
cdef Record** slot(Core* core, const char* key, size_t size) noexcept nogil
cdef void take_out(Core* core, Record* record) noexcept nogil
cdef void leave_table(Core* core, Record* record) noexcept nogil
cdef bint retain_passive(Core* core, Record* record) noexcept nogil

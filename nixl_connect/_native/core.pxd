"""The state that the completion thread shares with others, and what may be done to it."""

from libc.stdint cimport int64_t, uint64_t

from nixl_connect._native.bell cimport Address
from nixl_connect._native.capi cimport Api
from nixl_connect._native.census cimport Census
from nixl_connect._native.posix cimport pthread_cond_t, pthread_mutex_t, pthread_t
from nixl_connect._native.record cimport Record
from nixl_connect._native.waker cimport Waiter, WakerState

cdef enum:
    # How long (nanoseconds) the thread sleeps while operations wait: where peers do not ring, at
    # most, and where they do.
    LONGEST_NAP = 1_000_000
    HEARD_NAP = 2_000_000
    # How many rings of other users in a row may bring nothing.
    MOST_RINGS = 64

cdef struct Core

cdef struct Core:
    const Api* nixl
    void* agent                 # borrowed, as the next: outlives the thread
    pthread_mutex_t* progress   # the agent's: held in calls that make progress; taken last
    void* messenger             # a second agent, that tells peers
    void* notifications         # a NIXL notification map, of whoever holds `hearing`
    pthread_t thread
    pthread_mutex_t lock
    pthread_mutex_t polling     # held by whoever looks at active transfers; taken before `lock`
    pthread_mutex_t hearing     # held by whoever takes notifications; taken before `lock`
    int work                    # an event descriptor: the thread sleeps on it
    int bell                    # the doorbell: and on this; -1 once the thread is gone
    Address own                 # its name
    Core* beside                # of the list of this process, see `here`
    int probe                   # looks for doorbells of others
    pthread_cond_t ended        # blocking waiters and collectors sleep here
    pthread_cond_t garbage      # the reaper sleeps here
    bint stopping
    bint cancelling             # while stopping: end every operation
    bint stopped                # the thread is gone
    bint asleep
    bint roused                 # while awake: look again before sleeping
    int64_t asleep_until        # when asleep: when it wakes by itself
    bint reaper_asleep
    bint poked                  # Python has work for its reaper
    int sleepers                # threads in `ended`
    uint64_t passes             # how often the thread has looked at the network
    int onlookers               # threads in `ended` that wait for the next time
    Record* incoming            # to be posted by the thread
    Record* posted              # posted, to be looked at
    Record* retired             # ended for good, to be collected
    Record* lingering           # active ones that failed, and may still go on; the thread's
    Record* quarantined         # in quarantine since the last collection
    Record** buckets            # passive records by key
    size_t bucket_count
    size_t passive_count        # records in `buckets`
    size_t active_count         # records incoming, posted or active
    uint64_t large_count        # of them, the large ones
    size_t waiting              # records that are not final
    Record* active              # guarded by `polling`
    int64_t last_activity
    int64_t looked_until        # whoever waits for small transfers looks at them, until then
    int64_t rung_until          # a peer has said that something comes: until then, spin
    int process                 # this one
    int ringer                  # whose process did so last
    bint several                # more than one has: what one brings is not all that comes
    unsigned int turns          # of the spinning thread
    WakerState* listener        # the event loop that has the doorbell, with a reference; or NULL
    unsigned int loops          # those that wait for passive operations
    bint attended               # it is up, and looks
    uint64_t answers            # how often it has been up
    uint64_t answered           # what that was when it was last found not to have heard a ring
    bint unheard                # which may still be so
    int64_t lend_after          # until then no loop gets the doorbell
    int64_t withheld            # for how long that was the last time, and less after successes
    uint64_t notified_then      # `notified` when a peer last announced something
    unsigned int vain           # how often in a row it has looked for nothing
    bint heard                  # the last notification came with a ring
    int credit                  # rings of other users that may yet bring nothing
    int64_t refilled            # when that was last used
    int64_t deaf_until          # and until when not to listen, after many in vain
    int64_t last_rung           # when a peer's doorbell was last rung from here
    Address last_peer           # and whose
    int64_t idle_interval       # nanoseconds between looks with nothing to do; 0 for none
    bint named                  # others reach the doorbell by its name
    int64_t peer_silence        # nanoseconds after which a silent mover is lost; 0 for never
    int64_t last_told           # when a notification was last sent
    unsigned int told           # notifications sent since the thread last slept
    int64_t introduced          # when a connection was last begun
    int64_t last_errand         # when the messenger's connections were last looked at
    int64_t errands_until       # and until when to do so at every turn
    int64_t next_deadline       # no deadline, and no look for a mover, is earlier
    int64_t drain_until         # when stopping: give up on active records then
    Census census
    uint64_t held               # atomic, as the next: operations whose memory is kept
    uint64_t held_bytes
    uint64_t rings              # how often the doorbell woke the thread
    uint64_t ignored            # of these, how often it did not look for longer
    uint64_t notified           # notifications received
    uint64_t unmatched          # of them, those that no operation waited for
    uint64_t direct             # of the others, those by the doorbell or within this process

# All but the last three with the lock held.
cdef bint finish(Core* core, Record* record, int status, int reason, int error) noexcept nogil
cdef void retire(Core* core, Record* record, int stage) noexcept nogil
cdef void rouse(Core* core) noexcept nogil
cdef void rouse_soon(Core* core, int64_t soon) noexcept nogil
cdef Record** slot(Core* core, const char* key, size_t size) noexcept nogil
cdef void take_out(Core* core, Record* record) noexcept nogil
cdef void leave_table(Core* core, Record* record) noexcept nogil
cdef void poke(Core* core) noexcept nogil
cdef bint is_there(Core* core, Address bell) noexcept nogil
cdef void lend_bell(Core* core, WakerState* loop) noexcept nogil
cdef void withhold_bell(Core* core) noexcept nogil
cdef void withhold_for_now(Core* core) noexcept nogil
cdef void take_bell(Core* core) noexcept nogil
cdef void await_end(Core* core, Record* record, Waiter* waiter) noexcept nogil
cdef Waiter* forget_wait(Core* core, Record* record, uint64_t token) noexcept nogil
cdef bint finish_passive(Core* core, Record* record) noexcept nogil
cdef bint retain_passive(Core* core, Record* record) noexcept nogil

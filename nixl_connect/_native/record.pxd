"""The native record of one operation."""

from libc.stdint cimport int64_t, uint64_t

from nixl_connect._native.bell cimport Address
from nixl_connect._native.waker cimport Waiter

# Why an operation ended, beside its status.
cdef enum Reason:
    REASON_NONE = 0
    REASON_LOCAL = 1            # cancelled by its owner
    REASON_CLOSED = 2           # its connection was closed
    REASON_TIMEOUT = 3          # its deadline passed
    REASON_TRANSFER = 4         # NIXL failed the transfer
    REASON_PEER_LOST = 5        # NIXL failed it because the peer is gone
    REASON_NOT_TOLD = 6         # data moved, but the peer could not be notified
    REASON_PEER_CANCELLED = 7   # the peer said that it gave up
    REASON_PEER_FAILED = 8      # the peer said that its transfer failed
    REASON_MOVER_LOST = 9       # passive: who moved the bytes is not on this host any more
    REASON_MOVER_SILENT = 10    # passive: or has not said for long, on another, that it goes on

# What Python learns of a record that it collects.
cdef enum Stage:
    STAGE_QUARANTINED = 0       # over, but a peer may still touch the memory; it will come again
    STAGE_CLEAN = 1             # nobody can touch the memory any more
    STAGE_UNKNOWN = 2           # the connection closed before that was known

cdef enum:
    MOST_PARTS = 2
    PROBE_SIZE = 18
    CANCELLED_PREFIX_SIZE = 23
    FAILED_PREFIX_SIZE = 20
    BROKEN_PREFIX_SIZE = 20
    MOVES_PREFIX_SIZE = 20

# What an active side sends instead of the key when it gave up; after the third, which says that
# NIXL failed the transfer, some of it may still go on. With the last it says now and then that a
# transfer goes on. Peers that do not know these find no operation of that key and ignore them.
cdef const char* CANCELLED_PREFIX
cdef const char* FAILED_PREFIX
cdef const char* BROKEN_PREFIX
cdef const char* MOVES_PREFIX

# A message that says nothing, sent to learn whether a connection stands.
cdef const char* PROBE

cdef enum:
    # Beside NIXL's own statuses: the peer's doorbell is not there any more.
    GONE = -1003

cdef struct Record

# One request of a transfer: on the connection's agent, and then whoever owns the record posts it
# and looks at it, or on a lane's, whose thread does.
cdef struct Part:
    Record* record
    void* agent
    void* request
    char* peer                  # what the agent calls the peer
    void* lane                  # a Lane, or NULL
    Part* next                  # of the lane's list
    int rc                      # what became of it, once the lane has done with it
    bint lost                   # and whether its peer is lost

# One operation. `status` is atomic; what is not marked otherwise is constant once the record is
# shared, or guarded by the core's lock.
cdef struct Record:
    int refs                    # atomic: the Python object and the core hold one each
    int status                  # atomic, see status.pyx
    int reason
    int error                   # NIXL's status, where the reason has one
    uint64_t id
    uint64_t nbytes
    int kind                    # see census.pxd
    bint listed                 # in the census, between these two
    Record* older
    Record* younger
    int64_t begun               # since when, monotonic nanoseconds
    bint quarantining           # over, but not its memory
    bint is_active
    bint exposed                # metadata was handed out: a peer may touch the memory
    bint claimed                # the transfer is done and being announced: too late to cancel
    int stage                   # a Stage, once it is to be collected
    int posted                  # active: whether NIXL has the request; read as a hint, too
    bint counted                # prepared: among the core's active ones
    bint large                  # active: a call about it may take as long as a long copy
    int64_t deadline            # monotonic nanoseconds; INT64_MAX without one
    int64_t quarantine          # nanoseconds
    char* key                   # the notification key
    size_t key_size
    char* peer                  # active: what the connection's agent calls the peer
    Address bell                # active: the peer's doorbell
    bint near                   # active: which was there when the peer was met; the next three, too
    bint writes                 # to the peer, else from it
    int64_t proved              # when the doorbell was last seen; the owner's, as the next
    bint gone                   # it has been found missing
    char* told_as               # active: what the messenger calls the peer; or NULL
    bint reliable               # and whether it tells it when the bytes are there, else the agent
    Part[2] parts               # active: MOST_PARTS, of which there are
    int part_count
    int unfinished              # atomic: those that lanes have yet to do with
    int64_t say_at              # active: when to say next that it goes on; its owner's
    int64_t look_at             # passive: when to look for who moves its bytes; 0 for nobody
    bint near_mover             # who is of this host, and has the next doorbell; else of another
    Address mover
    bint doubted                # the last look was in vain
    uint64_t transfers          # passive: so many complete it; 0 where only its owner does
    uint64_t done               # how many have; the next two, too, where it is not 1
    uint64_t failed             # how many failed or were cancelled
    bint tainted                # one of those may still go on
    bint kept                   # the reaper is to tell of its end
    Record* next                # of whichever list owns it: bucket, incoming, active or retired
    Record* next_quarantined    # of the list of those that have just begun their quarantine
    Waiter* waiters
    void* hold                  # a reference to what it holds, see `hold`; with the GIL alone

cdef Record* new_record(uint64_t id, const char* key, size_t key_size) noexcept nogil
cdef void retain_record(Record* record) noexcept nogil
cdef int live_records() noexcept nogil
cdef void release_record(Record* record) noexcept nogil

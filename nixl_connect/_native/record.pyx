"""The native record of one operation: made, counted and freed."""

from libc.stdint cimport INT64_MAX, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from nixl_connect._native.atomic cimport atomic_add
from nixl_connect._native.waker cimport Waiter, free_waiter


CANCELLED_PREFIX = b"nixl_connect:cancelled:"
FAILED_PREFIX = b"nixl_connect:failed:"
BROKEN_PREFIX = b"nixl_connect:broken:"
MOVES_PREFIX = b"nixl_connect:moving:"
PROBE = b"nixl_connect:probe"

cdef int _live = 0


cdef int live_records() noexcept nogil:
    """Return how many records there are in the process."""
    return atomic_add(&_live, 0)


cdef Record* new_record(uint64_t id, const char* key, size_t key_size) noexcept nogil:
    """Return a record with one reference, or NULL when out of memory."""
    cdef Record* record = <Record*>calloc(1, sizeof(Record))
    if record is NULL:
        return NULL
    record.key = <char*>malloc(key_size + 1)
    if record.key is NULL:
        free(record)
        return NULL
    memcpy(record.key, key, key_size)
    record.key[key_size] = 0
    record.key_size = key_size
    atomic_add(&_live, 1)
    record.refs = 1
    record.id = id
    record.deadline = INT64_MAX
    record.transfers = 1
    return record


cdef void retain_record(Record* record) noexcept nogil:
    """Add one reference."""
    atomic_add(&record.refs, 1)


cdef void release_record(Record* record) noexcept nogil:
    """Drop one reference."""
    cdef Waiter* waiter
    cdef int i
    if atomic_add(&record.refs, -1):
        return
    while record.waiters is not NULL:
        waiter = record.waiters
        record.waiters = waiter.next
        free_waiter(waiter)
    atomic_add(&_live, -1)
    for i in range(MOST_PARTS):
        free(record.parts[i].peer)
    free(record.key)
    free(record.peer)
    free(record.told_as)
    free(record)

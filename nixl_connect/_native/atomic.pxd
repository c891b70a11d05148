"""Integers that several threads change without a lock, and hints at what a lock guards."""

from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    #define NC_ADD(cell, n) __atomic_add_fetch((cell), (n), __ATOMIC_ACQ_REL)
    #define NC_COUNT(cell, n) __atomic_add_fetch((cell), (n), __ATOMIC_RELAXED)
    #define NC_LOAD(cell) __atomic_load_n((cell), __ATOMIC_ACQUIRE)
    #define NC_STORE(cell, n) __atomic_store_n((cell), (n), __ATOMIC_RELEASE)
    #define NC_SWAP(cell, seen, n) __atomic_compare_exchange_n( \
        (cell), (seen), (n), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
    /* A word that others write with a lock held, read without: a hint, which is confirmed under the
       lock or only puts something off until the next look. Race detectors are not to mind. */
    #define NC_PEEK(name, type) \
        __attribute__((no_sanitize_thread)) static inline type name(type const* cell) { \
            return *(type const volatile*)cell; \
        }
    NC_PEEK(nc_peek_int, int)
    NC_PEEK(nc_peek_time, int64_t)
    NC_PEEK(nc_peek_count, uint64_t)
    NC_PEEK(nc_peek_list, void*)
    """
    int peek_int "nc_peek_int"(const int* cell) nogil
    int64_t peek_time "nc_peek_time"(const int64_t* cell) nogil
    uint64_t peek_count "nc_peek_count"(const uint64_t* cell) nogil
    void* peek_list "nc_peek_list"(void** cell) nogil
    int atomic_add "NC_ADD"(int* cell, int n) nogil
    uint64_t count_add "NC_COUNT"(uint64_t* cell, int64_t n) nogil
    int atomic_load "NC_LOAD"(const int* cell) nogil
    void atomic_store "NC_STORE"(int* cell, int n) nogil
    bint atomic_swap "NC_SWAP"(int* cell, int* seen, int n) nogil

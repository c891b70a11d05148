"""Integers that several threads change without a lock."""

cdef extern from *:
    """
    #define NC_ADD(cell, n) __atomic_add_fetch((cell), (n), __ATOMIC_ACQ_REL)
    #define NC_LOAD(cell) __atomic_load_n((cell), __ATOMIC_ACQUIRE)
    #define NC_STORE(cell, n) __atomic_store_n((cell), (n), __ATOMIC_RELEASE)
    """
    int atomic_add "NC_ADD"(int* cell, int n) nogil
    int atomic_load "NC_LOAD"(int* cell) nogil
    void atomic_store "NC_STORE"(int* cell, int n) nogil

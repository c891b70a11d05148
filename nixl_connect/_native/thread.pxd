"""The completion thread."""

from libc.stdint cimport int64_t

from nixl_connect._native.bell cimport Address
from nixl_connect._native.capi cimport Api
from nixl_connect._native.core cimport Core
from nixl_connect._native.posix cimport pthread_mutex_t

cdef Core* new_core(
    const Api* nixl, void* agent, pthread_mutex_t* progress, void* messenger, Address own,
    int64_t idle_interval, int64_t peer_silence
) noexcept nogil
cdef void stop_core(Core* core, int64_t drain, bint cancel) noexcept nogil
cdef void free_core(Core* core) noexcept nogil

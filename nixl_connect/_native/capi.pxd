"""NIXL's C API as a table of function pointers, resolved once per process.

The declarations restate the public header of NIXL's C bindings
(``src/bindings/rust/wrapper.h`` of ai-dynamo/nixl, unchanged from 1.0 to 1.5). Every call is made
without the GIL. Handles are opaque pointers that belong to whoever created them.
"""

from libc.stdint cimport uint64_t, uintptr_t

cdef extern from "<stdbool.h>":
    ctypedef bint c_bool "bool"

cdef enum:
    NIXL_SUCCESS = 0
    NIXL_IN_PROGRESS = 1
    NIXL_ERR_INVALID_PARAM = -1
    NIXL_ERR_BACKEND = -2
    NIXL_ERR_INVALID_STATE = -3
    NIXL_ERR_EXCEPTION = -4
    NIXL_ERR_NO_TELEMETRY = -5
    NIXL_ERR_NOT_FOUND = -6

cdef enum:
    SYNC_STRICT = 1             # calls from several threads are serialised

cdef struct AgentConfig:
    c_bool enable_progress_thread
    c_bool enable_listen_thread
    int listen_port
    int thread_sync
    unsigned int workers
    uint64_t progress_delay_us
    uint64_t listen_delay_us
    c_bool capture_telemetry

cdef struct Api:
    # agent
    int (*create_configured_agent)(const char*, const AgentConfig*, void**) noexcept nogil
    int (*destroy_agent)(void*) noexcept nogil
    int (*get_local_md)(void*, void**, size_t*) noexcept nogil
    int (*get_local_partial_md)(void*, void*, void**, size_t*, void*) noexcept nogil
    int (*load_remote_md)(void*, const void*, size_t, char**) noexcept nogil
    int (*invalidate_remote_md)(void*, const char*) noexcept nogil
    # plugins and parameters
    int (*get_available_plugins)(void*, void**) noexcept nogil
    int (*string_list_size)(void*, size_t*) noexcept nogil
    int (*string_list_get)(void*, size_t, const char**) noexcept nogil
    int (*destroy_string_list)(void*) noexcept nogil
    # These two may be NULL.
    int (*get_plugin_params)(void*, const char*, void**, void**) noexcept nogil
    int (*destroy_mem_list)(void*) noexcept nogil
    int (*create_params)(void**) noexcept nogil
    int (*params_add)(void*, const char*, const char*) noexcept nogil
    int (*destroy_params)(void*) noexcept nogil
    int (*create_backend)(void*, const char*, void*, void**) noexcept nogil
    int (*destroy_backend)(void*) noexcept nogil
    # registration
    int (*create_reg_dlist)(int, void**) noexcept nogil
    int (*reg_dlist_add_desc)(
        void*, uintptr_t, size_t, uint64_t, const void*, size_t
    ) noexcept nogil
    int (*destroy_reg_dlist)(void*) noexcept nogil
    int (*register_mem)(void*, void*, void*) noexcept nogil
    int (*deregister_mem)(void*, void*, void*) noexcept nogil
    # transfers
    int (*create_xfer_dlist)(int, void**) noexcept nogil
    int (*xfer_dlist_add_desc)(void*, uintptr_t, size_t, uint64_t) noexcept nogil
    int (*destroy_xfer_dlist)(void*) noexcept nogil
    int (*create_xfer_req)(
        void*, int, void*, void*, const char*, void**, void*
    ) noexcept nogil
    int (*post_xfer_req)(void*, void*, void*) noexcept nogil
    int (*get_xfer_status)(void*, void*) noexcept nogil
    int (*release_xfer_req)(void*, void*) noexcept nogil
    int (*destroy_xfer_req)(void*) noexcept nogil
    # notifications
    int (*gen_notif)(void*, const char*, const void*, size_t, void*) noexcept nogil
    int (*get_notifs)(void*, void*, void*) noexcept nogil
    int (*create_notif_map)(void**) noexcept nogil
    int (*destroy_notif_map)(void*) noexcept nogil
    int (*notif_map_clear)(void*) noexcept nogil
    int (*notif_map_size)(void*, size_t*) noexcept nogil
    int (*notif_map_get_agent_at)(void*, size_t, const char**) noexcept nogil
    int (*notif_map_get_notifs_size)(void*, const char*, size_t*) noexcept nogil
    int (*notif_map_get_notif)(void*, const char*, size_t, const void**, size_t*) noexcept nogil

cdef const Api* api() except NULL
cdef int check(int status, const char* call) except -1 nogil

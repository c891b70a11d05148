"""Notifications that NIXL has for this side."""

from nixl_connect._native.capi cimport NIXL_SUCCESS, Api
from nixl_connect._native.delivery cimport deliver
from nixl_connect._native.posix cimport (
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
)


cdef bint poll_notifications(Core* core, bint patient) noexcept nogil:
    """Take what peers have sent; False where that takes patience. `hearing` held."""
    cdef const Api* nixl = core.nixl
    cdef size_t agents = 0
    cdef size_t count
    cdef size_t size
    cdef size_t i
    cdef size_t j
    cdef const char* name
    cdef const void* data
    if patient:
        pthread_mutex_lock(core.progress)
    elif pthread_mutex_trylock(core.progress):
        return False  # somebody posts, or looks at, what may be a long copy
    nixl.get_notifs(core.agent, core.notifications, NULL)
    pthread_mutex_unlock(core.progress)
    nixl.notif_map_size(core.notifications, &agents)
    if agents == 0:
        return True
    for i in range(agents):
        if nixl.notif_map_get_agent_at(core.notifications, i, &name):
            continue
        count = 0
        nixl.notif_map_get_notifs_size(core.notifications, name, &count)
        for j in range(count):
            if nixl.notif_map_get_notif(core.notifications, name, j, &data, &size) == NIXL_SUCCESS:
                pthread_mutex_lock(&core.lock)
                deliver(core, <const char*>data, size)
                pthread_mutex_unlock(&core.lock)
    nixl.notif_map_clear(core.notifications)
    return True

"""Resolves NIXL's C API from a shared library; the sole owner of its function pointers."""

import os

from nixl_connect._native.process cimport Kept, keep, put_back

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW
    int RTLD_LOCAL
    void* dlopen(const char* path, int flags)
    void* dlsym(void* handle, const char* name)
    char* dlerror()

cdef Api _api
# Set once `_api` is whole, never unset: pointers handed out stay valid, since the library is never
# closed (its threads and UCX's could not survive that).
cdef bint _loaded = False
_path = None


class NativeError(Exception):
    """A call of NIXL's C API failed.

    Attributes
    ----------
    status : int
        The status that the call returned.
    call : str
        Name of the C function, without its prefix.
    """

    status: int
    call: str

    def __init__(self, status: int, call: str) -> None:
        super().__init__(f"{call} returned {status_name(status)}")
        self.status = status
        self.call = call


class LoadError(Exception):
    """A file is not a usable NIXL C library; the text says why."""


# The C API folds most of NIXL's own codes into ERR_BACKEND: 1.5.1 keeps INVALID_PARAM, NOT_FOUND
# and NO_TELEMETRY apart and nothing else, so a lost peer has to be told by other means (see
# `transfer.pyx`).
_STATUS_NAMES = {
    NIXL_IN_PROGRESS: "IN_PROGRESS",
    NIXL_SUCCESS: "SUCCESS",
    NIXL_ERR_INVALID_PARAM: "ERR_INVALID_PARAM",
    NIXL_ERR_BACKEND: "ERR_BACKEND",
    NIXL_ERR_INVALID_STATE: "ERR_INVALID_STATE",
    NIXL_ERR_EXCEPTION: "ERR_EXCEPTION",
    NIXL_ERR_NO_TELEMETRY: "ERR_NO_TELEMETRY",
    NIXL_ERR_NOT_FOUND: "ERR_NOT_FOUND",
}


def status_name(int status) -> str:
    """Return the name of a NIXL C API status code."""
    return _STATUS_NAMES.get(status, f"ERR_{-status}" if status < 0 else str(status))


cdef int check(int status, const char* call) except -1 nogil:
    """Raise NativeError unless `status` is success. Takes the GIL only to raise."""
    if status == NIXL_SUCCESS:
        return 0
    with gil:
        raise NativeError(status, call.decode())


cdef const Api* api() except NULL:
    if not _loaded:
        raise RuntimeError("NIXL's C library is not loaded")
    return &_api


cdef class _Resolver:
    cdef void* handle
    cdef list missing

    cdef void perhaps(self, void** slot, const char* name):
        cdef bytes symbol = b"nixl_capi_" + name
        slot[0] = dlsym(self.handle, symbol)

    cdef void into(self, void** slot, const char* name):
        self.perhaps(slot, name)
        if slot[0] is NULL:
            self.missing.append("nixl_capi_" + name.decode())


def loaded_from() -> str | None:
    """Path of the library in use, or None before the first successful `load`."""
    return _path


def load(path: str) -> None:
    """Open a NIXL C library and resolve its functions. A second call does nothing.

    Parameters
    ----------
    path : str
        File name of ``libnixl_capi.so``.

    Raises
    ------
    LoadError
        The file cannot be opened, or lacks functions that this package calls.
    """
    global _loaded, _path
    if _loaded:
        return
    cdef bytes encoded = os.fsencode(path)
    cdef char* why
    cdef const char* c_path = encoded
    cdef void* handle
    cdef Kept kept
    with nogil:  # it runs the library's constructors
        keep(&kept)
        handle = dlopen(c_path, RTLD_NOW | RTLD_LOCAL)
    try:
        if handle is NULL:
            why = dlerror()
            raise LoadError(why.decode("utf-8", "replace") if why is not NULL else "dlopen failed")
    finally:
        put_back(&kept)
    cdef _Resolver find = _Resolver()
    find.handle = handle
    find.missing = []
    find.into(<void**>&_api.create_configured_agent, b"create_configured_agent")
    find.into(<void**>&_api.destroy_agent, b"destroy_agent")
    find.into(<void**>&_api.get_local_md, b"get_local_md")
    find.into(<void**>&_api.get_local_partial_md, b"get_local_partial_md")
    find.into(<void**>&_api.load_remote_md, b"load_remote_md")
    find.into(<void**>&_api.invalidate_remote_md, b"invalidate_remote_md")
    find.into(<void**>&_api.get_available_plugins, b"get_available_plugins")
    find.into(<void**>&_api.string_list_size, b"string_list_size")
    find.into(<void**>&_api.string_list_get, b"string_list_get")
    find.into(<void**>&_api.destroy_string_list, b"destroy_string_list")
    find.into(<void**>&_api.create_params, b"create_params")
    find.into(<void**>&_api.params_add, b"params_add")
    find.into(<void**>&_api.destroy_params, b"destroy_params")
    find.into(<void**>&_api.create_backend, b"create_backend")
    find.into(<void**>&_api.destroy_backend, b"destroy_backend")
    find.into(<void**>&_api.create_reg_dlist, b"create_reg_dlist")
    find.into(<void**>&_api.reg_dlist_add_desc, b"reg_dlist_add_desc")
    find.into(<void**>&_api.destroy_reg_dlist, b"destroy_reg_dlist")
    find.into(<void**>&_api.register_mem, b"register_mem")
    find.into(<void**>&_api.deregister_mem, b"deregister_mem")
    find.into(<void**>&_api.create_xfer_dlist, b"create_xfer_dlist")
    find.into(<void**>&_api.xfer_dlist_add_desc, b"xfer_dlist_add_desc")
    find.into(<void**>&_api.destroy_xfer_dlist, b"destroy_xfer_dlist")
    find.into(<void**>&_api.create_xfer_req, b"create_xfer_req")
    find.into(<void**>&_api.post_xfer_req, b"post_xfer_req")
    find.into(<void**>&_api.get_xfer_status, b"get_xfer_status")
    find.into(<void**>&_api.release_xfer_req, b"release_xfer_req")
    find.into(<void**>&_api.destroy_xfer_req, b"destroy_xfer_req")
    find.into(<void**>&_api.gen_notif, b"gen_notif")
    find.into(<void**>&_api.get_notifs, b"get_notifs")
    find.into(<void**>&_api.create_notif_map, b"create_notif_map")
    find.into(<void**>&_api.destroy_notif_map, b"destroy_notif_map")
    find.into(<void**>&_api.notif_map_clear, b"notif_map_clear")
    find.into(<void**>&_api.notif_map_size, b"notif_map_size")
    find.into(<void**>&_api.notif_map_get_agent_at, b"notif_map_get_agent_at")
    find.into(<void**>&_api.notif_map_get_notifs_size, b"notif_map_get_notifs_size")
    find.into(<void**>&_api.notif_map_get_notif, b"notif_map_get_notif")
    find.perhaps(<void**>&_api.get_plugin_params, b"get_plugin_params")
    find.perhaps(<void**>&_api.destroy_mem_list, b"destroy_mem_list")
    if find.missing:
        raise LoadError("it lacks " + ", ".join(find.missing))
    _loaded = True
    _path = path

"""UCX, the library under NIXL's transport of the same name: what it can use here.

Runs in a child process only: it calls a library by its public C interface, at a version that is
whatever NIXL brought.
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from pathlib import Path
from typing import Any

# From ucp/api/ucp.h, the same since UCX 1.0.
_UCP_PARAM_FIELD_FEATURES = 1
_UCP_FEATURE_RMA = 2
_UCP_FEATURE_AM = 64
# More than ucp_params_t has ever had; the field mask says that no more than features is set.
_PARAMS_WORDS = 64

_RESOURCE = re.compile(r"^#\s+resource\s+\d+\s*:.*\s(\w+)/(\S+)\s*$", re.MULTILINE)


def find_loaded() -> str | None:
    """Return the path of the UCX that this process has loaded; None if it has none."""
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r"^\S+ \S+ \S+ \S+ \S+\s+(/.*/libucp\b[^/\n]*)$", maps, re.MULTILINE)
    return found.group(1) if found else None


def inspect(path: str) -> dict[str, Any]:
    """Return UCX's version, and the transports and devices that it can use with its settings.

    Parameters
    ----------
    path : str
        Its library ``libucp``.

    Raises
    ------
    OSError
        UCX refuses: there is no transport that its settings allow.
    """
    ucp = ctypes.CDLL(path)
    ucp.ucp_get_version_string.restype = ctypes.c_char_p
    version: bytes = ucp.ucp_get_version_string()
    with tempfile.NamedTemporaryFile() as file:
        _print_context(ucp, file.name)
        printed = file.read().decode()
    resources = [
        {"transport": transport, "device": device}
        for transport, device in _RESOURCE.findall(printed)
    ]
    return {"version": version.decode(), "transports": resources}


def _print_context(ucp: ctypes.CDLL, file_name: str) -> None:
    """Have UCX open what it can, write down what that is, and close it."""
    major, minor, release = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
    ucp.ucp_get_version(ctypes.byref(major), ctypes.byref(minor), ctypes.byref(release))
    config, context = ctypes.c_void_p(), ctypes.c_void_p()
    params = (ctypes.c_uint64 * _PARAMS_WORDS)()
    params[0] = _UCP_PARAM_FIELD_FEATURES
    params[1] = _UCP_FEATURE_RMA | _UCP_FEATURE_AM
    status = ucp.ucp_config_read(None, None, ctypes.byref(config))
    if status:
        raise OSError(f"UCX cannot read its settings: status {status}")
    status = ucp.ucp_init_version(major, minor, params, config, ctypes.byref(context))
    ucp.ucp_config_release(config)
    if status:
        raise OSError(f"UCX finds no transport that its settings allow: status {status}")
    try:
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        stream = ctypes.c_void_p(libc.fopen(os.fsencode(file_name), b"w"))
        if stream.value is None:
            raise OSError(f"cannot write to {file_name}")
        ucp.ucp_context_print_info(context, stream)
        libc.fclose(stream)
    finally:
        ucp.ucp_cleanup(context)

"""UCX's hooks in the program's memory functions, and whether this machine has what needs them.

A device that has registered memory has to learn when the program gives it back. So UCX rewrites
the first instructions of mmap, munmap and six more functions of the C library as its first agent
starts. For each it waits 50 ms, so that no thread is still within it, and whoever calls it
meanwhile waits, too. Where no device registers memory all this is for nothing: half a second of a
program's start, and an event loop that stands still because a list has grown.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from nixl_connect._native.process import Variable

_MODE = b"UCX_MEM_MMAP_HOOK_MODE"
# With any of these the user says what to do: the cache is what the hooks are for.
_SET = ("UCX_MEM_MMAP_HOOK_MODE", "UCX_MEM_EVENTS", "UCX_RCACHE_ENABLE")
_CACHE = b"RCACHE_ENABLE"
_ROOT = "/"
# Folders, and how the names of devices in them begin: RDMA, NVIDIA's GPUs (of Windows' subsystem,
# too), AMD's and Intel's; modules that share memory.
_DEVICES = (
    ("sys/class/infiniband", ""),
    ("dev/infiniband", ""),
    ("proc/driver/nvidia", ""),
    ("dev/dri", ""),
    *(("dev", name) for name in ("nvidia", "dxg", "kfd", "xpmem", "knem")),
)
_left_out = False


def are_needed(settings: Mapping[bytes, bytes]) -> bool:
    """Whether the hooks are for UCX to decide: there is a device, or the user said what to do.

    Parameters
    ----------
    settings : mapping of bytes to bytes
        UCX's settings, without those of the environment.
    """
    if _CACHE in settings or any(name in os.environ for name in _SET):
        return True
    return any(_may_have(folder, name) for folder, name in _DEVICES)


def _may_have(folder: str, name: str) -> bool:
    try:
        return any(item.startswith(name) for item in os.listdir(os.path.join(_ROOT, folder)))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # who may not look does not know


def _is_ucx_loaded() -> bool:
    try:
        with open("/proc/self/maps", "rb") as maps:
            return b"/libucs" in maps.read()
    except OSError:
        return True


def are_left_out() -> bool:
    """Whether UCX was loaded without them."""
    return _left_out


@contextlib.contextmanager
def left_out_if_needless(settings: Mapping[bytes, bytes]) -> Iterator[None]:
    """Have UCX, if it is loaded in the ``with`` block, set no hooks where nothing needs them.

    It reads that from the environment as it is loaded, once per process.

    Parameters
    ----------
    settings : mapping of bytes to bytes
        UCX's settings, without those of the environment.
    """
    global _left_out  # noqa: PLW0603
    if _left_out or _is_ucx_loaded() or are_needed(settings):
        yield
        return
    with Variable(_MODE, b"none"):
        yield
    _left_out = _is_ucx_loaded()

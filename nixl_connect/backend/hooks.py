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
from pathlib import Path

from nixl_connect._native.process import Variable

_MODE = b"UCX_MEM_MMAP_HOOK_MODE"
# With either the user says what to do.
_SET = ("UCX_MEM_MMAP_HOOK_MODE", "UCX_MEM_EVENTS")
_ROOT = Path("/")
# RDMA, NVIDIA's GPUs (of Windows' subsystem, too), AMD's and Intel's; modules that share memory.
_DEVICES = (
    *("sys/class/infiniband/*", "dev/infiniband/*"),
    *("dev/nvidia*", "dev/dxg", "dev/kfd", "dev/dri/*"),
    *("dev/xpmem", "dev/knem"),
)
_left_out = False


def are_needed() -> bool:
    """Whether the hooks are for UCX to decide: there is a device, or the user said what to do."""
    if any(name in os.environ for name in _SET):
        return True
    try:
        return any(True for pattern in _DEVICES for _ in _ROOT.glob(pattern))
    except OSError:
        return True  # who may not look does not know


def are_left_out() -> bool:
    """Whether UCX was loaded without them."""
    return _left_out


def left_out_if_needless() -> contextlib.AbstractContextManager[None]:
    """Have UCX, if it is loaded in the ``with`` block, set no hooks where nothing needs them.

    It reads that from the environment as it is loaded, once per process.
    """
    global _left_out  # noqa: PLW0603
    if _left_out or are_needed():
        return contextlib.nullcontext()
    _left_out = True
    return Variable(_MODE, b"none")

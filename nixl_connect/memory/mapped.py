"""Whether local memory is there, and may be read or written: for memory that nobody vouches for.

NIXL and UCX find out when they copy. Within a host the kernel then refuses, and UCX gives up the
connection to the peer, with all that is in flight there; over TCP the process ends. So what is
given by its address is looked at before, and everything once it has failed.
"""

from __future__ import annotations

import bisect

from nixl_connect._native import mapped
from nixl_connect._native.packing import Regions
from nixl_connect.memory.buffers import Memory
from nixl_connect.memory.device import HOST

UNMAPPED = "not mapped"
READ_ONLY = "read-only"
UNREADABLE = "not readable"


def refusal(memory: Memory, size: int, *, written: bool) -> str:
    """Return what is wrong with memory that is known by its address alone; empty if nothing is.

    Takes a microsecond, and looks at the protection of the first page alone.

    Parameters
    ----------
    memory : Memory
        Where it is, from its first byte.
    size : int
        How many bytes of it are meant.
    written : bool
        Whether it is to receive data.
    """
    if memory.device != HOST:
        return ""
    if not mapped.is_mapped(memory.pointer, size):
        return UNMAPPED
    if not mapped.is_accessible(memory.pointer, written):
        return fault(Regions([(memory.pointer, size, 0)]), written=written)
    return ""


def fault(regions: Regions, *, written: bool) -> str:
    """Return what is wrong with regions of the host, by the kernel's maps; empty if nothing is.

    Takes a tenth of a millisecond and more.
    """
    maps = _maps()
    starts = [start for start, _, _ in maps]
    for address, size, _ in map(regions.__getitem__, range(len(regions))):
        at, end = address, address + size
        i = bisect.bisect_right(starts, address) - 1
        while at < end:
            if i < 0 or i == len(maps) or not maps[i][0] <= at < maps[i][1]:
                return UNMAPPED
            _, at, protection = maps[i]
            if "r" not in protection:
                return UNREADABLE
            if written and "w" not in protection:
                return READ_ONLY
            i += 1
    return ""


def _maps() -> list[tuple[int, int, str]]:
    """Return start, end and protection of each mapping of this process, in order."""
    found = []
    with open("/proc/self/maps", "rb") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        span, protection, *_ = line.split(maxsplit=2)
        start, _, end = span.partition(b"-")
        found.append((int(start, 16), int(end, 16), protection.decode()))
    return found

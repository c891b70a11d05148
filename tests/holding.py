"""What a connector holds, seen without the letting go that `Connector.stats` does first.

And what the whole process does.
"""

import contextlib
import ctypes
from pathlib import Path

import nixl_connect as nc


def footprint() -> dict[str, int]:
    """Return what the process holds: bytes, threads, file descriptors, and sockets of these."""
    # What the allocator keeps for later is as much as there once was at the same time.
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    descriptors = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            descriptors.append(str(path.readlink()))
    return {
        "memory": int(status.partition("VmRSS:")[2].split()[0]) * 1024,
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "descriptors": len(descriptors),
        "sockets": sum(each.startswith("socket:") for each in descriptors),
    }


def held(connector: nc.Connector) -> dict[str, int]:
    """Return how many operations hold memory, are in flight, and how much is registered."""
    connection = connector._connection
    if connection is None:
        return {"operations": 0, "active": 0, "registrations": 0}
    engine = connection._engine
    return {
        "operations": engine.keeper.kept[0],
        "active": engine._reactor.counters["active"],
        "registrations": len(engine.registry) + sum(len(lane.registry) for lane in engine.lanes),
    }

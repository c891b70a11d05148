"""Run out of something at every place, one after the other. Run by test_exhausted.py.

    python exhausted.py files|sockets COUNT|loop|threads|memory

What is tried is a whole life: open, offer, read, wait, prepare, transfer, close. Each time it must
end well or with an error that says what happened, and the next one, when there is enough again,
must end well. Prints, as JSON: how many places there were, and the errors by kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import functools
import gc
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from peer import content
from processes import Peer, open_files, steady

import nixl_connect as nc
from nixl_connect.peers import lanes

PATIENCE = 10.0
_USER = 54320  # one that has no processes
SIZE = 3000


def life() -> None:
    """Open, move, compare, close."""
    source, target = bytearray(range(250)) * (SIZE // 250), bytearray(SIZE)
    with nc.Connector(drain=1.0, quarantine=0.0) as one, nc.Connector(drain=1.0) as other:
        with one.create_readable_blocking(nc.Descriptor(source)) as offered:
            told = nc.RdmaMetadata.model_validate_json(offered.metadata().model_dump_json())
            read = other.begin_read_blocking(told, nc.Descriptor(target), timeout=PATIENCE)
            read.wait_for_completion_blocking(PATIENCE)
            offered.wait_for_completion_blocking(PATIENCE)
        assert source == target
        again(one, other)


def again(one: nc.Connector, other: nc.Connector) -> None:
    """Offer and move once more, prepared."""
    source, target = bytearray(b"x" * SIZE), bytearray(SIZE)
    with one.create_writable_blocking(nc.Descriptor(target)) as offered:
        with other.prepare_write_blocking(nc.Descriptor(source), offered.metadata()) as write:
            write.transfer_blocking(PATIENCE)
        offered.wait_for_completion_blocking(PATIENCE)
    assert source == target


def attempt(call: Callable[[], None], errors: Counter[str]) -> bool:
    """Call; return whether it ended well."""
    try:
        call()
    except (nc.NixlConnectError, MemoryError, OSError, ImportError, RuntimeError) as error:
        errors[type(error).__name__] += 1
        return False
    errors["none"] += 1
    return True


@contextlib.contextmanager
def few_files(count: int) -> Iterator[None]:
    """Leave so many file descriptors to be had."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, most))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + count, most))
    try:
        yield
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        for number in taken:
            os.close(number)


def files(errors: Counter[str]) -> int:
    """Run out of file descriptors when there is nothing yet."""
    life()
    count = well = 0
    while well < 2:
        with few_files(count):
            well = well + 1 if attempt(life, errors) else 0
        if count % 5 == 0:
            life()
        count += 1
    life()
    return count


def sockets(errors: Counter[str]) -> int:
    """Run out of file descriptors when a peer is to be connected: there are so many left.

    Once in a process: where UCX cannot accept what comes from elsewhere, it stops to listen and
    loses count of what it has open. That cannot be prevented here.
    """
    peer = Peer({})
    try:
        peer.do("connect")
        with nc.Connector(drain=1.0) as connector:
            connector._open()
            steady(open_files)  # UCX accepts a connection to itself, on a thread of its own
            read = functools.partial(read_from, peer, connector)
            with few_files(int(sys.argv[2])):
                attempt(read, errors)
            read()
    finally:
        peer.end()
    return 1


def loop(errors: Counter[str]) -> int:
    """Run out of file descriptors when an event loop is to wait for the first time."""

    async def main() -> None:
        with few_files(0):
            try:
                await offered.wait_for_completion(PATIENCE)
            except nc.NixlConnectError as error:
                errors[type(error).__name__] += 1
        with contextlib.suppress(nc.WaitTimeoutError):
            await offered.wait_for_completion(0.1)

    with nc.Connector() as connector:
        offered = connector.create_readable_blocking(nc.Descriptor(bytearray(SIZE)))
        for count in range(1, 6):
            asyncio.run(main())
            if set(errors) == {"BackendError"}:
                return count
            errors.clear()  # UCX gave one back meanwhile
    return 0


def threads(errors: Counter[str]) -> int:
    """Run out of threads, as a user whom that limit concerns; on an event loop, too."""
    size = 9 << 20  # enough for lanes

    async def main() -> None:
        source, target = os.urandom(size), bytearray(size)
        async with (
            nc.Connector(drain=1.0, quarantine=0.0) as one,
            nc.Connector(drain=1.0) as other,
            await one.create_readable(nc.Descriptor(source)) as offered,
        ):
            read = await other.begin_read(offered.metadata(), nc.Descriptor(target))
            await read.wait_for_completion(PATIENCE)
            await offered.wait_for_completion(PATIENCE)
        assert source == target

    lanes.COUNT = 2
    life()  # whatever is imported late may be out of the user's reach
    asyncio.run(main())
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(*[_USER] * 3)
        os.setresuid(*[_USER] * 3)
    before = tasks()
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    count = well = 0
    while well < 2:
        resource.setrlimit(resource.RLIMIT_NPROC, (threads_of(os.getuid()) + count, most))
        well = well + 1 if attempt(lambda: asyncio.run(main()), errors) else 0
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        end = time.monotonic() + PATIENCE
        while tasks() > before:
            assert time.monotonic() < end, "threads are left"
            gc.collect()
            time.sleep(0.01)
        count += 1
    life()
    return count


def tasks() -> int:
    """Return how many threads this process has."""
    return len(list(Path("/proc/self/task").iterdir()))


def threads_of(user: int) -> int:
    """Return how many threads a user has."""
    count = 0
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and process.stat().st_uid == user:
                count += len(list((process / "task").iterdir()))
    return count


def read_from(peer: Peer, connector: nc.Connector) -> None:
    """Read, and compare."""
    made = peer.do("passive", kind="readable", sizes=[SIZE], seed=1)
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    target = bytearray(SIZE)
    read = connector.begin_read_blocking(told, nc.Descriptor(target), timeout=PATIENCE)
    read.wait_for_completion_blocking(PATIENCE)
    peer.do("wait", number=made["id"])
    assert target == content(1, SIZE).tobytes()


def memory(errors: Counter[str]) -> int:
    """Run out of memory in the native layer."""
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.failing_seen.restype = ctypes.c_long
    life()
    count = 0
    while True:
        count += 1
        library.failing_arm(ctypes.c_long(count))
        attempt(life, errors)
        seen = library.failing_seen()
        library.failing_arm(ctypes.c_long(0))
        gc.collect()
        if seen < count:
            life()
            return count


PLACES = {
    "files": files,
    "sockets": sockets,
    "loop": loop,
    "threads": threads,
    "memory": memory,
}


def main() -> None:
    """Run out of what is named, and print what came of it."""
    faulthandler.dump_traceback_later(200, exit=True)
    errors: Counter[str] = Counter()
    places = PLACES[sys.argv[1]](errors)
    print(json.dumps({"places": places, "errors": errors}))


if __name__ == "__main__":
    main()

"""Which of its transports UCX used to reach a peer: it says so in its log, and nowhere else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Iterator

from nixl_connect.backend import library

DIRECT = frozenset({"cma", "knem", "xpmem"})
"""Transports that copy from process to process."""
TO_STANDARD_ERROR = {"UCX_LOG_LEVEL": "info", "UCX_LOG_FILE": "stderr"}
"""Variables that have UCX say what it chooses, for a process whose standard error is read."""
_LANES = re.compile(r"UCX\s+INFO\s+\S+ (?:intra-node|inter-node) cfg#\d+ (.+)$", re.MULTILINE)
# What UCX logs only because it was asked to.
_NO_NEWS = re.compile(r"\bUCX\s+(?:INFO|DIAG)\b")
_LANE = re.compile(r"(\w+)\(([^)]*)\)")


class Log:
    """What UCX logs in this process, while `logged` is in force."""

    def __init__(self) -> None:
        # A file without a name: nobody else can put another in its place, and nothing is left.
        self.number: int = os.memfd_create("ucx-log")
        self._told = 0

    def lanes(self) -> dict[str, list[str]]:
        """Return what UCX has chosen so far, as `used_lanes`."""
        return used_lanes(self._read().decode(errors="replace"))

    def tell(self) -> None:
        """Print to standard error what is new, and what UCX would have said unasked."""
        new = self._read()[self._told :]
        whole = new[: new.rfind(b"\n") + 1]
        self._told += len(whole)
        for line in without_choices(whole.decode(errors="replace")).splitlines():
            print(line, file=sys.stderr)

    def _read(self) -> bytes:
        ctypes.CDLL(None).fflush(None)  # UCX's stream, too
        return os.pread(self.number, os.fstat(self.number).st_size, 0)


@contextlib.contextmanager
def logged() -> Iterator[Log | None]:
    """Load NIXL, and have UCX log its choices; None where the user has it log already."""
    # The command itself has UCX log to standard error, if the user says nothing.
    if os.environ.get("UCX_LOG_FILE", "stderr") != "stderr" or "UCX_LOG_LEVEL" in os.environ:
        library.load()
        yield None
        return
    log, before = Log(), os.environ.get("UCX_LOG_FILE")
    os.environ |= {"UCX_LOG_LEVEL": "info", "UCX_LOG_FILE": f"/proc/self/fd/{log.number}"}
    try:
        library.load()
        yield log
    finally:
        log.tell()
        os.close(log.number)
        # What is started later has no such file.
        del os.environ["UCX_LOG_LEVEL"], os.environ["UCX_LOG_FILE"]
        if before is not None:
            os.environ["UCX_LOG_FILE"] = before


def used_transports(lanes: dict[str, list[str]]) -> set[str]:
    """Return the transports among lanes."""
    return {item.partition("/")[0] for chosen in lanes.values() for item in chosen}


def is_direct(lanes: dict[str, list[str]]) -> bool:
    """Whether large data goes from process to process, without a detour."""
    return not DIRECT.isdisjoint(used_transports(lanes))


def without_choices(log: str) -> str:
    """Return a log without what UCX says only because it was asked to."""
    return "\n".join(line for line in log.splitlines() if _NO_NEWS.search(line) is None)


def used_lanes(log: str) -> dict[str, list[str]]:
    """Return what UCX chose to reach the peer, by its log: purpose to transports and devices.

    Purposes are UCX's: ``rma`` is direct access, ``rma_am`` access that the peer's processor
    serves, ``am`` messages and bulk data, ``ka`` watching whether the peer is alive.
    """
    lanes: dict[str, list[str]] = {}
    for line in _LANES.findall(log):
        for purpose, chosen in _LANE.findall(line):
            known = lanes.setdefault(purpose, [])
            known += [item for item in chosen.split() if item not in known]
    return lanes

"""Which of its transports UCX used to reach a peer: it says so in its log, and nowhere else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nixl_connect.backend import library

DIRECT = frozenset({"cma", "knem", "xpmem"})
"""Transports that copy from process to process."""
_LANES = re.compile(r"UCX\s+INFO\s+\S+ (?:intra-node|inter-node) cfg#\d+ (.+)$", re.MULTILINE)
# What UCX logs when nobody asks it to.
_NEWS = re.compile(r"\bUCX\s+(?:WARN|ERROR|FATAL)\b")
_LANE = re.compile(r"(\w+)\(([^)]*)\)")


def log_environment(folder: str) -> dict[str, str]:
    """Return variables that have UCX log its choices into files of `folder`."""
    return {"UCX_LOG_LEVEL": "info", "UCX_LOG_FILE": f"{folder}/ucx.%p.log"}


@contextlib.contextmanager
def logged() -> Iterator[Callable[[], dict[str, list[str]]]]:
    """Load NIXL, and have UCX log its choices in this process; nothing where the user has it log.

    Yields what returns them, as `used_lanes`. What else there is to say goes to standard error in
    the end.
    """
    with tempfile.TemporaryDirectory() as folder:
        # The command itself has UCX log to standard error, if the user says nothing.
        if (
            os.environ.get("UCX_LOG_FILE", "stderr") == "stderr"
            and "UCX_LOG_LEVEL" not in os.environ
        ):
            os.environ |= log_environment(folder)
        try:
            library.load()
            yield lambda: used_lanes(folder)
        finally:
            _flush()
            for file in sorted(Path(folder).glob("ucx.*.log")):
                for line in file.read_text(errors="replace").splitlines():
                    if _NEWS.search(line) is not None:
                        print(line, file=sys.stderr)


def _flush() -> None:
    """Have what UCX has logged in this process so far be in its file."""
    ctypes.CDLL(None).fflush(None)


def used_transports(lanes: dict[str, list[str]]) -> set[str]:
    """Return the transports among lanes."""
    return {item.partition("/")[0] for chosen in lanes.values() for item in chosen}


def is_direct(lanes: dict[str, list[str]]) -> bool:
    """Whether large data goes from process to process, without a detour."""
    return not DIRECT.isdisjoint(used_transports(lanes))


def used_lanes(folder: str) -> dict[str, list[str]]:
    """Return what UCX chose to reach the peer, by its log: purpose to transports and devices.

    Purposes are UCX's: ``rma`` is direct access, ``rma_am`` access that the peer's processor
    serves, ``am`` messages and bulk data, ``ka`` watching whether the peer is alive.
    """
    _flush()
    lanes: dict[str, list[str]] = {}
    for file in sorted(Path(folder).glob("ucx.*.log")):
        for line in _LANES.findall(file.read_text(errors="replace")):
            for purpose, chosen in _LANE.findall(line):
                known = lanes.setdefault(purpose, [])
                known += [item for item in chosen.split() if item not in known]
    return lanes

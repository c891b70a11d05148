"""The doctor's self-test: two processes that read from each other, write, compare and measure.

Needs NumPy and nothing of the extra; metadata travels through the parent.
"""

from __future__ import annotations

import hashlib
import pwd
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nixl_connect as nc
from nixl_connect.cli import lanes
from nixl_connect.cli.child import Parent, run
from nixl_connect.cli.children import Children
from nixl_connect.cli.doctor.process import count_open_files
from nixl_connect.cli.errors import ChildError

SMALL_BYTES = 8
LARGE_BYTES = 32 * 1024 * 1024
_SMALL_COUNT = 100
_LARGE_COUNT = 3
_TIMEOUT = 30.0
# The parent's: the children notice first, and say what it was.
_PATIENCE = 2 * _TIMEOUT
_PROCESS = "nixl_connect.cli.doctor.selftest"


def self_test(user: pwd.struct_passwd | None = None) -> dict[str, Any]:
    """Run the test and return what it measured.

    Parameters
    ----------
    user : struct_passwd, optional
        Who the process that reads and writes is of, if not of this one's user.

    Returns
    -------
    dict
        ``passed``, ``error`` (None or a text), ``log`` (what a process that failed wrote last), and
        where it passed the measurements: sizes in bytes, durations in seconds, rates in bytes per
        second, open files, and ``lanes`` as UCX reports them.
    """
    try:
        with Children() as children:
            for name, whose in (("owner", None), ("mover", user)):
                children.start(name, _PROCESS, lanes.TO_STANDARD_ERROR, whose)
                children.send(name, role=name)
            measured = _relay(children)
            children.finish(_PATIENCE)
            log = "".join(children.log(name) for name in ("owner", "mover"))
    except ChildError as error:
        return {"passed": False, "error": error.headline, "log": lanes.without_choices(error.log)}
    used = lanes.used_lanes(log)
    return {"passed": True, "error": None, "log": "", **measured, "lanes": used}


def _relay(children: Children) -> dict[str, Any]:
    """Pass metadata to the mover, then let both sides agree on every hash."""
    _, lent = children.receive(_PATIENCE)
    children.send("mover", metadata=lent["metadata"])
    _, moved = children.receive(_PATIENCE)
    children.send("owner")
    _, settled = children.receive(_PATIENCE)
    for what, source, targets in (
        ("small reads", lent["small"], moved["small"]),
        ("large reads", lent["large"], moved["large"]),
        ("large writes", moved["written"], settled["written"]),
    ):
        wrong = sum(target != source for target in targets)
        if wrong:
            raise ChildError(f"{wrong} of {len(targets)} {what} did not arrive as they were sent")
    measured: dict[str, Any] = moved["measured"]
    return measured


# --- in the children --------------------------------------------------------------------------


def main() -> None:
    """Run one side, as the first message from the parent says."""
    run(lambda parent: {"owner": _own, "mover": _move}[parent.expect()["role"]](parent))


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _buffer(size: int, seed: int | None = None) -> tuple[Any, nc.Descriptor]:
    """Return an array, zeros or random, and its descriptor."""
    if seed is None:
        array = np.empty(size, np.uint8)
        array[:] = 0  # np.zeros would leave the pages to be made during the transfer
    else:
        array = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    return array, nc.Descriptor(array)


def _own(parent: Parent) -> None:
    with nc.Connector(timeout=_TIMEOUT, quarantine=0) as connector:
        small, small_descriptor = _buffer(SMALL_BYTES, seed=1)
        large, large_descriptor = _buffer(LARGE_BYTES, seed=2)
        sinks = [_buffer(LARGE_BYTES) for _ in range(_LARGE_COUNT)]
        descriptors = [small_descriptor, large_descriptor, *(item for _, item in sinks)]
        for descriptor in descriptors:
            descriptor.register_memory(connector)
        lent: dict[str, list[nc.PassiveOperation]] = {
            "small": [
                connector.create_readable_blocking(small_descriptor) for _ in range(_SMALL_COUNT)
            ],
            "large": [
                connector.create_readable_blocking(large_descriptor) for _ in range(_LARGE_COUNT)
            ],
            "sinks": [connector.create_writable_blocking(item) for _, item in sinks],
        }
        parent.report(
            "lent",
            metadata={
                name: [operation.metadata().model_dump() for operation in operations]
                for name, operations in lent.items()
            },
            small=_digest(small),
            large=_digest(large),
        )
        parent.expect()
        for operations in lent.values():
            for operation in operations:
                operation.wait_for_completion_blocking(_TIMEOUT)
        parent.report("settled", written=[_digest(array) for array, _ in sinks])


def _move(parent: Parent) -> None:
    before = count_open_files()
    with nc.Connector(timeout=_TIMEOUT, quarantine=0) as connector:
        connector.open_blocking()
        opened = count_open_files()
        small, small_descriptor = _buffer(SMALL_BYTES)
        large, large_descriptor = _buffer(LARGE_BYTES)
        source, source_descriptor = _buffer(LARGE_BYTES, seed=3)
        for descriptor in (small_descriptor, large_descriptor, source_descriptor):
            descriptor.register_memory(connector)
        metadata = {
            name: [nc.RdmaMetadata.model_validate(item) for item in items]
            for name, items in parent.expect()["metadata"].items()
        }

        def read(array: Any, descriptor: nc.Descriptor, remote: Any) -> tuple[float, str]:
            array[:] = 0
            seconds = _timed(lambda: connector.begin_read_blocking(remote, descriptor))
            return seconds, _digest(array)

        def write(remote: Any) -> float:
            return _timed(lambda: connector.begin_write_blocking(source_descriptor, remote))

        small_reads = [read(small, small_descriptor, item) for item in metadata["small"]]
        large_reads = [read(large, large_descriptor, item) for item in metadata["large"]]
        writes = [write(item) for item in metadata["sinks"]]
        parent.report(
            "moved",
            small=[digest for _, digest in small_reads],
            large=[digest for _, digest in large_reads],
            written=_digest(source),
            measured={
                "connector_files": opened - before,
                "peer_files": count_open_files() - opened,
                "first_contact_seconds": small_reads[0][0],
                "small_bytes": SMALL_BYTES,
                "small_read_seconds": statistics.median(taken for taken, _ in small_reads[1:]),
                "large_bytes": LARGE_BYTES,
                "read_bytes_per_second": LARGE_BYTES
                / statistics.median(taken for taken, _ in large_reads),
                "write_bytes_per_second": LARGE_BYTES / statistics.median(writes),
            },
        )


def _timed(begin: Callable[[], nc.ActiveOperation]) -> float:
    """Run a transfer; return its duration from its beginning to its completion."""
    start = time.perf_counter()
    with begin() as operation:
        operation.wait_for_completion_blocking(_TIMEOUT)
        return time.perf_counter() - start

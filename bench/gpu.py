"""Reads and writes from process to process in memory of a GPU, beside NIXL itself and a copy.

``make test-gpu`` runs it; ``--memory cpu`` does the same in memory of the host. All are measured in
one run and take turns, so that their ratios mean something. Each subject has a process that owns
the memory; the reads and writes are made by this one, and every byte is compared once.

NIXL is measured twice: as it comes, and with the settings of UCX that this library gives it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "gpu"))

from gpu_sides import DIRECTIONS, SUBJECTS, TITLES, Memory, Owner

import nixl_connect

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = (1, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB, 8 * GIB)
PAIRS = (("device", "device"), ("device", "cpu"), ("cpu", "device"))
# A subject that took longer (seconds) than this is not measured at larger sizes.
PATIENCE = 2.0


def measure(theirs: str, mine: str, sizes: list[int], seconds: float) -> list[dict[str, Any]]:
    """Return, for each direction and size, the median seconds of each subject and of a copy."""
    memory = Memory(mine, max(sizes))
    copy = None
    if theirs == mine:
        other = Memory(mine, max(sizes))
        other.fill(other.size)
        copy = memory.copier(other)
    owners: dict[str, Owner] = {}
    rows = []
    try:
        sides = {}
        for subject, side in SUBJECTS.items():
            owners[subject] = Owner(subject, theirs, sizes)
            sides[subject] = side(f"{subject}-mover", owner=False)
        for direction in DIRECTIONS:
            measured = dict.fromkeys(SUBJECTS, True)
            movers = {
                name: sides[name].movers(direction, memory, owners[name].told[direction], sizes)
                for name in SUBJECTS
            }
            for number, size in enumerate(sizes):
                if not any(measured.values()):
                    break
                work: dict[str, Callable[[], Any]] = {}
                for name in [name for name in SUBJECTS if measured[name]]:
                    work[name] = movers[name][number]
                    took = checked(direction, memory, owners[name], work[name], size)
                    measured[name] = took < PATIENCE
                if copy is not None:
                    work["copy"] = lambda size=size: copy(size)
                row = {"direction": direction, "size": size, "theirs": theirs, "mine": mine}
                rows.append(row | _medians(work, seconds))
                print(text(rows[-1]), flush=True)
        for side in sides.values():
            side.close()
        return rows
    finally:
        for owner in owners.values():
            owner.end()


def checked(
    direction: str, memory: Memory, owner: Owner, move: Callable[[], Any], size: int
) -> float:
    """Move bytes once, raise unless they arrive, and return how long that took, in seconds."""
    if direction == "read":
        owner.do(f"fill {size}")
        memory.clear(size)
    else:
        memory.fill(size)
        owner.do(f"clear {size}")
    began = time.perf_counter()
    move()
    took = time.perf_counter() - began
    if direction == "read":
        memory.compare(size)
    else:
        owner.do(f"compare {size}")
    return took


def _medians(work: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Have the subjects take turns for some seconds, at least three times each."""
    samples: dict[str, list[float]] = {name: [] for name in work}
    end = time.monotonic() + seconds
    while time.monotonic() < end or min(map(len, samples.values())) < 3:
        for name, call in work.items():
            began = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in samples.items()}


def text(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    ends = (row["theirs"], row["mine"])
    cells = [row["direction"], *(ends if row["direction"] == "read" else ends[::-1])]
    cells.append(f"{row['size']:,}")
    for name in (*SUBJECTS, "copy"):
        seconds = row.get(name)
        cells.append(
            "" if seconds is None
            else f"{seconds * 1e6:.1f} us, {row['size'] / seconds / 1e9:.2f} GB/s"
        )  # fmt: skip
    ours, same = row.get("nixl_connect"), row.get("nixl_as_ours")
    cells.append("" if ours is None or same is None else f"{ours / same:.2f}")
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python bench/gpu.py", description=__doc__)
    parser.add_argument("--memory", choices=("device", "cpu"), default="device")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="bytes")
    parser.add_argument("--most", type=int, default=8 * GIB, help="bytes of the largest read")
    parser.add_argument("--out", type=Path, help="file for all figures, as JSON")
    options = parser.parse_args()
    name = platform.processor() or platform.machine()
    most = options.most
    if options.memory == "device":
        if not nixl_connect.memory.cuda.is_available():
            print("no GPU: nothing was measured (--memory cpu measures memory of the host)")
            return 0
        from gpu_api import Gpu

        gpu = Gpu()
        name = gpu.name
        # The owners of all subjects, this process's buffer, and what it copies from.
        most = min(most, gpu.free_bytes // 6)
    # Of the host, at most the owners of all subjects, and the two of this process.
    most = min(most, psutil.virtual_memory().available // 6)
    sizes = [size for size in options.sizes if size <= most]
    if not sizes:
        parser.error(f"--sizes: no more than {most} bytes fit")
    print(f"{name}, {datetime.now(timezone.utc):%Y-%m-%d}, NIXL {_nixl_version()}")
    print("| | from | to | bytes |", " | ".join(TITLES), "| copy | ratio, same settings |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    rows: list[dict[str, Any]] = []
    for pair in PAIRS if options.memory == "device" else [("cpu", "cpu")]:
        rows += measure(*pair, sizes, options.seconds)
        if options.out:
            options.out.write_text(json.dumps({"machine": name, "rows": rows}, indent=1) + "\n")
    return 0


def _nixl_version() -> str:
    from harness.backends.nixl_python import nixl

    return version(nixl.__package__.replace("_", "-"))


if __name__ == "__main__":
    sys.exit(main())

"""Reads from process to process in memory of a GPU, beside NIXL itself and a copy on the device.

``make test-gpu`` runs it; ``--memory cpu`` does the same in memory of the host. All are measured in
one run and take turns, so that their ratios mean something. Each subject has a process that owns
the memory; the reads are made by this one, and every byte is compared once.
"""

from __future__ import annotations

import argparse
import base64
import json
import pickle
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "gpu"))

import nixl_connect

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = (1, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB, 8 * GIB)
PAIRS = (("device", "device"), ("device", "cpu"), ("cpu", "device"))
SUBJECTS = ("nixl", "nixl_connect")
# How much is filled and compared at a time, and by what it goes around: not a power of two.
PATTERN = np.random.default_rng(0).integers(0, 256, 16 * MIB - 5, np.uint8)


class Memory:
    """Bytes on the host or on a GPU, with where they are."""

    def __init__(self, kind: str, size: int) -> None:
        self.size, self.device = size, "cuda:0" if kind == "device" else "cpu"
        self._array: Any = None
        if kind == "device":
            from gpu import Gpu

            self._gpu = Gpu()
            self._memory = self._gpu.memory(size)
            self.pointer = self._memory.pointer
        else:
            self._array = np.zeros(size, np.uint8)
            self.pointer = self._array.ctypes.data

    def fill(self) -> None:
        """Write the pattern."""
        for at in range(0, self.size, PATTERN.size):
            part = PATTERN[: self.size - at]
            if self._array is None:
                self._memory.write(part, at)
            else:
                self._array[at : at + part.size] = part

    def clear(self) -> None:
        """Write zeros."""
        if self._array is None:
            self._memory.clear()
        else:
            self._array[:] = 0

    def compare(self, size: int) -> None:
        """Raise AssertionError unless the first bytes are the pattern's."""
        for at in range(0, size, PATTERN.size):
            expected = PATTERN[: size - at]
            if self._array is None:
                seen = self._memory.read(at, expected.size)
            else:
                seen = self._array[at : at + expected.size]
            if not (seen == expected).all():
                raise AssertionError(f"wrong bytes from {at} on")

    def copier(self, source: Memory) -> Callable[[int], None]:
        """Return what copies bytes from other memory within this process, and waits."""
        if self._array is None:
            from gpu import call

            def copy(size: int) -> None:
                call("cuMemcpy", self.pointer, source.pointer, size)
                call("cuCtxSynchronize")
        else:

            def copy(size: int) -> None:
                np.copyto(self._array[:size], source._array[:size])

        return copy


class Nixl:
    """NIXL's Python API: a request that is posted again and again, by a program that spins."""

    def __init__(self, name: str, *, owner: bool) -> None:
        from harness.backends.nixl_python import nixl

        # An owner has NIXL's thread, which spins, so that reads that it has to serve are served.
        config = nixl.nixl_agent_config(enable_prog_thread=owner, backends=["UCX"])
        self._agent = nixl.nixl_agent(name, config)

    def _descriptors(self, memory: Memory, size: int) -> Any:
        kind = "DRAM" if memory.device == "cpu" else "VRAM"
        return self._agent.get_xfer_descs([(memory.pointer, size, 0)], kind)

    def _register(self, memory: Memory) -> Any:
        kind = "DRAM" if memory.device == "cpu" else "VRAM"
        region = [(memory.pointer, memory.size, 0, "")]
        return self._agent.register_memory(region, kind)

    def own(self, memory: Memory, sizes: list[int]) -> list[str]:
        """Return what a reader needs, for each size."""
        self._register(memory)
        told = self._agent.get_agent_metadata()
        return [
            base64.b64encode(pickle.dumps((told, self._descriptors(memory, size)))).decode()
            for size in sizes
        ]

    def reader(self, memory: Memory, told: list[str], sizes: list[int]) -> list[Any]:
        """Return for each size what reads so many bytes, and waits."""
        self._register(memory)
        reads = []
        for size, text in zip(sizes, told, strict=True):
            metadata, remote = pickle.loads(base64.b64decode(text))
            peer = self._agent.add_remote_agent(metadata)
            local = self._descriptors(memory, size)
            reads.append(self._read(self._agent.initialize_xfer("READ", local, remote, peer, b"")))
        return reads

    def _read(self, transfer: Any) -> Callable[[], None]:
        def read() -> None:
            state = self._agent.transfer(transfer)
            while state == "PROC":
                state = self._agent.check_xfer_state(transfer)
            if state != "DONE":
                raise RuntimeError(f"transfer ended as {state}")

        return read


class Ours:
    """The library of this repository: prepared reads."""

    def __init__(self, name: str, *, owner: bool) -> None:
        self._connector = nixl_connect.Connector(name)
        self._operations: list[Any] = []

    def _descriptor(self, memory: Memory) -> nixl_connect.Descriptor:
        return nixl_connect.Descriptor((memory.pointer, memory.size, memory.device, memory))

    def own(self, memory: Memory, sizes: list[int]) -> list[str]:
        """Return what a reader needs, for each size."""
        whole = self._descriptor(memory)
        whole.register_memory(self._connector)
        self._operations = [
            self._connector.create_readable_blocking(whole.slice(0, size), timeout=3600)
            for size in sizes
        ]
        return [operation.metadata().model_dump_json() for operation in self._operations]

    def reader(self, memory: Memory, told: list[str], sizes: list[int]) -> list[Any]:
        """Return for each size what reads so many bytes, and waits."""
        whole = self._descriptor(memory)
        whole.register_memory(self._connector)
        self._operations = [
            self._connector.prepare_read_blocking(
                nixl_connect.RdmaMetadata.model_validate_json(text), whole.slice(0, size)
            )
            for size, text in zip(sizes, told, strict=True)
        ]
        return [operation.transfer_blocking for operation in self._operations]


_SIDES = {"nixl": Nixl, "nixl_connect": Ours}


def own(subject: str, kind: str, sizes: list[int]) -> None:
    """Own memory until standard input ends."""
    memory = Memory(kind, max(sizes))
    memory.fill()
    side = _SIDES[subject](f"{subject}-owner", owner=True)
    print(json.dumps(side.own(memory, sizes)), flush=True)
    sys.stdin.read()


def measure(theirs: str, mine: str, sizes: list[int], seconds: float) -> list[dict[str, Any]]:
    """Return, for each size, the median seconds of each subject and of a copy."""
    memory = Memory(mine, max(sizes))
    copy = None
    if theirs == mine:
        other = Memory(mine, max(sizes))
        other.fill()
        copy = memory.copier(other)
    owners = []
    reads: dict[str, list[Any]] = {}
    try:
        for subject in SUBJECTS:
            command = [sys.executable, __file__, "--own", subject, theirs, *map(str, sizes)]
            owners.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            told = _answer(owners[-1])
            reads[subject] = _SIDES[subject](f"{subject}-reader", owner=False).reader(
                memory, told, sizes
            )
        rows = []
        for number, size in enumerate(sizes):
            work: dict[str, Callable[[], None]] = {name: reads[name][number] for name in SUBJECTS}
            for name in SUBJECTS:
                memory.clear()
                work[name]()
                memory.compare(size)
            if copy is not None:
                work["copy"] = lambda size=size: copy(size)
            rows.append({"size": size, "from": theirs, "to": mine, **_medians(work, seconds)})
            print(text(rows[-1]), flush=True)
        return rows
    finally:
        for owner in owners:
            assert owner.stdin is not None
            owner.stdin.close()
            owner.wait(60)


def _answer(owner: subprocess.Popen[str]) -> list[str]:
    """Return what an owner tells, among what UCX may log on the same stream."""
    assert owner.stdout is not None
    for line in owner.stdout:
        if line.startswith('["'):  # UCX logs to the same stream
            told: list[str] = json.loads(line)
            return told
    raise RuntimeError(f"the owner ended with {owner.wait(60)}")


def _medians(work: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Have the subjects take turns for some seconds, at least three times each."""
    samples: dict[str, list[float]] = {name: [] for name in work}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(samples["nixl"]) < 3:
        for name, call in work.items():
            began = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in samples.items()}


def text(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [row["from"], row["to"], f"{row['size']:,}"]
    for name in (*SUBJECTS, "copy"):
        seconds = row.get(name)
        cells.append(
            "" if seconds is None
            else f"{seconds * 1e6:.1f} us, {row['size'] / seconds / 1e9:.2f} GB/s"
        )  # fmt: skip
    cells.append(f"{row['nixl_connect'] / row['nixl']:.2f}")
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python bench/gpu.py", description=__doc__)
    parser.add_argument("--memory", choices=("device", "cpu"), default="device")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each size")
    parser.add_argument("--most", type=int, default=8 * GIB, help="bytes of the largest read")
    parser.add_argument("--out", type=Path, help="file for all figures, as JSON")
    parser.add_argument("--own", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own:
        subject, kind, *sizes = options.own
        own(subject, kind, list(map(int, sizes)))
        return 0
    name = platform.processor() or platform.machine()
    most = options.most
    if options.memory == "device":
        if not nixl_connect.cuda.is_available():
            print("no GPU: nothing was measured (--memory cpu measures memory of the host)")
            return 0
        from gpu import Gpu

        gpu = Gpu()
        name = gpu.name
        # The owners of both subjects, this process's buffer, and what it copies from.
        most = min(most, gpu.free_bytes // 5)
    # Of the host, at most the owners of both subjects, and the two of this process.
    most = min(most, psutil.virtual_memory().available // 5)
    sizes = [size for size in SIZES if size <= most]
    print(f"{name}, {datetime.now(timezone.utc):%Y-%m-%d}, NIXL {_nixl_version()}")
    print("| from | to | bytes | NIXL | nixl_connect | copy | nixl_connect / NIXL |")
    print("|---|---|---|---|---|---|---|", flush=True)
    pairs = PAIRS if options.memory == "device" else [("cpu", "cpu")]
    rows = [row for pair in pairs for row in measure(*pair, sizes, options.seconds)]
    if options.out:
        options.out.write_text(json.dumps({"machine": name, "rows": rows}, indent=1) + "\n")
    return 0


def _nixl_version() -> str:
    from harness.backends.nixl_python import nixl

    return version(nixl.__package__.replace("_", "-"))


if __name__ == "__main__":
    sys.exit(main())

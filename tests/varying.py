"""Fresh memory of varying sizes for every operation, between two processes. Run by test_varying.py.

    python varying.py --operations 200000
    UCX_TLS=tcp python varying.py --operations 200000

Each operation reads or writes 1 to 16 arrays of 1 byte to 4 MiB that were allocated for it, and
every byte is compared. Allocators hand out ever new combinations of address and size. Prints, as
JSON, what both processes hold after a tenth of the operations and at the end, and how often the
peer was connected again; ends with an error if any of that grew.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from holding import footprint

import nixl_connect as nc

MOST = 16
LARGEST = 4 << 20
# Seconds for one operation.
PATIENCE = 30.0
# Bytes of memory that allocators may keep more of at one time than at another.
SLACK = 64 << 20


def value(number: int, i: int) -> int:
    """Return the byte that array `i` of an operation is filled with."""
    return (number * MOST + i) % 251 + 1


def filled(sizes: list[int], number: int) -> list[Any]:
    """Return new arrays, as they are before a transfer from them."""
    return [np.full(size, value(number, i), np.uint8) for i, size in enumerate(sizes)]


def empty(sizes: list[int]) -> list[Any]:
    """Return new arrays, as they are before a transfer to them."""
    return [np.zeros(size, np.uint8) for size in sizes]


def check(arrays: list[Any], number: int) -> None:
    """Compare every byte."""
    for i, array in enumerate(arrays):
        assert (array == value(number, i)).all(), (number, i, array.size)


def descriptors(arrays: list[Any]) -> list[nc.Descriptor]:
    """Return a descriptor for each array."""
    return [nc.Descriptor(array) for array in arrays]


def passive() -> None:
    """Offer memory for each line of standard input; answer its metadata, then what is held."""
    with nc.Connector(timeout=PATIENCE) as connector:
        for line in sys.stdin:
            asked = json.loads(line)
            if "sizes" not in asked:
                print(json.dumps(held_by(connector)), flush=True)
                continue
            reading, number = asked["read"], asked["number"]
            arrays = filled(asked["sizes"], number) if reading else empty(asked["sizes"])
            make = connector.create_readable_blocking
            if not reading:
                make = connector.create_writable_blocking
            with make(descriptors(arrays)) as operation:
                print(operation.metadata().model_dump_json(), flush=True)
                operation.wait_for_completion_blocking()
            if not reading:
                check(arrays, number)
            del arrays, operation


def held_by(connector: nc.Connector) -> dict[str, int]:
    """Return what this process holds when nothing goes on."""
    end = time.monotonic() + PATIENCE
    while connector.stats()["operations"]["held"] and time.monotonic() < end:
        time.sleep(0.01)
    gc.collect()
    stats = connector.stats()
    return footprint() | {
        "reloads": stats["peers"]["reloads"],
        "connections": stats["peers"]["connections"],
        "registrations": stats["registrations"]["count"],
    }


def active(count: int, seed: int) -> list[dict[str, dict[str, int]]]:
    """Make so many operations; return what both sides hold after a tenth, and at the end."""
    rng = random.Random(seed)
    command = [sys.executable, "-u", __file__, "--passive"]
    seen = []
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer,
        nc.Connector(timeout=PATIENCE) as connector,
    ):
        assert peer.stdin is not None
        assert peer.stdout is not None

        def ask(**what: Any) -> bytes:
            peer.stdin.write(json.dumps(what).encode() + b"\n")
            peer.stdin.flush()
            return peer.stdout.readline()

        for number in range(count):
            sizes = [int(LARGEST ** rng.random()) for _ in range(rng.randint(1, MOST))]
            reading = rng.random() < 0.5
            told = nc.RdmaMetadata.model_validate_json(
                ask(sizes=sizes, read=reading, number=number)
            )
            if reading:
                arrays = empty(sizes)
                operation: Any = connector.begin_read_blocking(told, descriptors(arrays))
            else:
                arrays = filled(sizes, number)
                operation = connector.begin_write_blocking(descriptors(arrays), told)
            operation.wait_for_completion_blocking()
            if reading:
                check(arrays, number)
            del arrays, operation
            if number + 1 in (count // 10, count):
                seen.append({"active": held_by(connector), "passive": json.loads(ask())})
        peer.stdin.close()
        assert peer.wait(PATIENCE) == 0
    return seen


def main() -> None:
    """Make operations, and print what came of it."""
    parser = argparse.ArgumentParser(prog="varying.py", description=__doc__)
    parser.add_argument("--operations", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--passive", action="store_true", help="be the other side")
    options = parser.parse_args()
    if options.passive:
        passive()
        return
    seen = active(options.operations, options.seed)
    print(json.dumps(seen, indent=2))
    for side in ("active", "passive"):
        first, last = (one[side] for one in seen)
        for figure in ("descriptors", "threads", "reloads", "connections", "registrations"):
            assert last[figure] <= first[figure], f"{figure} of the {side} side grow"
        assert last["memory"] <= first["memory"] + SLACK, f"memory of the {side} side grows"


if __name__ == "__main__":
    main()

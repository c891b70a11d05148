"""Results of Ray actors: by this library, by Ray's object store, by Ray's own NIXL transport.

    make bench-ray

One run, the ways in turns: an actor returns an array of 8 bytes or of 64 MiB, and another one adds
it up. Prints medians of the time from the call until the sum is known. Ray's own transport takes
tensors of torch, and all three are measured in an environment that has it.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import ray
import torch

import nixl_connect.ray

nixl_connect.ray.register()
SIZES = {"8 bytes": 8, "64 MiB": 64 << 20}
ROUNDS = {"8 bytes": 200, "64 MiB": 30}


@ray.remote(num_cpus=0.1, enable_tensor_transport=True)
class Owner:
    """Has what is returned, made once."""

    def __init__(self) -> None:
        self.arrays = {name: np.ones(size, np.uint8) for name, size in SIZES.items()}
        self.tensors = {name: torch.ones(size, dtype=torch.uint8) for name, size in SIZES.items()}

    @ray.method(tensor_transport="NIXL_CONNECT")
    def nixl_connect(self, name: str) -> Any:
        """Return an array."""
        return self.arrays[name]

    @ray.method(tensor_transport="NIXL")
    def ray_nixl(self, name: str) -> Any:
        """Return a tensor."""
        return self.tensors[name]

    def object_store(self, name: str) -> Any:
        """Return an array, by the object store."""
        return self.tensors[name].numpy()


@ray.remote(num_cpus=0.1, enable_tensor_transport=True)
class Reader:
    """Adds up what it is given."""

    def total(self, array: Any) -> int:
        """Return the sum."""
        return int(array.sum())


def main() -> None:
    """Measure, and print a table."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    # One owner for each way: once Ray has a serializer for arrays it pickles all of them.
    ways = {name: Owner.remote() for name in ("nixl_connect", "object_store", "ray_nixl")}
    reader = Reader.remote()
    print("| | " + " | ".join(ways) + " |\n|---|" + "---|" * len(ways))
    for size, rounds in ROUNDS.items():
        took: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 3):
            for name, owner in ways.items():
                began = time.perf_counter()
                ref = getattr(owner, name).remote(size)
                total = ray.get(reader.total.remote(ref), timeout=120)
                if number >= 3:
                    took[name].append(time.perf_counter() - began)
                assert total == SIZES[size]
                del ref
        medians = [f"{statistics.median(took[name]) * 1e3:.3g} ms" for name in ways]
        print(f"| {size} | " + " | ".join(medians) + " |", flush=True)
    print(f"Ray {ray.__version__}, torch {torch.__version__}", file=sys.stderr)
    ray.shutdown()


if __name__ == "__main__":
    main()

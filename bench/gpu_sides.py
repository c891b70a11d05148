"""Who moves memory of a GPU from process to process: what `gpu.py` measures.

Each subject has a side that owns the memory, in a process of its own, and one that moves it.
"""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "gpu"))

import nixl_connect
from nixl_connect.backend import ucx

DIRECTIONS = ("read", "write")
# How much is filled and compared at a time, and by what it goes around: not a power of two.
PATTERN = np.random.default_rng(0).integers(0, 256, (16 << 20) - 5, np.uint8)


class Memory:
    """Bytes on the host or on a GPU, with where they are."""

    def __init__(self, kind: str, size: int) -> None:
        self.size, self.device = size, "cuda:0" if kind == "device" else "cpu"
        self._array: Any = None
        if kind == "device":
            from gpu_api import Gpu

            self._gpu = Gpu()
            self._memory = self._gpu.memory(size)
            self.pointer = self._memory.pointer
        else:
            self._array = np.zeros(size, np.uint8)
            self.pointer = self._array.ctypes.data

    def fill(self, size: int) -> None:
        """Write the pattern over the first bytes."""
        for at in range(0, size, PATTERN.size):
            part = PATTERN[: size - at]
            if self._array is None:
                self._memory.write(part, at)
            else:
                self._array[at : at + part.size] = part

    def clear(self, size: int) -> None:
        """Write zeros over the first bytes."""
        if self._array is None:
            self._memory.clear(size)
        else:
            self._array[:size] = 0

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
            from gpu_api import call

            def copy(size: int) -> None:
                call("cuMemcpy", self.pointer, source.pointer, size)
                call("cuCtxSynchronize")
        else:

            def copy(size: int) -> None:
                np.copyto(self._array[:size], source._array[:size])

        return copy


class Nixl:
    """NIXL's Python API: a request that is posted again and again, by a program that spins.

    Parameters
    ----------
    name : str
        The agent's.
    owner : bool
        Whether it owns the memory, and others move it.
    """

    def __init__(self, name: str, *, owner: bool) -> None:
        from harness.backends.nixl_python import nixl

        # An owner has NIXL's thread, which spins, so that what it has to serve is served.
        config = nixl.nixl_agent_config(enable_prog_thread=owner, backends=[])
        self._agent = nixl.nixl_agent(name, config)
        self._agent.create_backend("UCX", self.parameters())

    @staticmethod
    def parameters() -> dict[str, str]:
        """Return what the transport is given."""
        return {}

    def close(self) -> None:
        """Nothing: the process ends."""

    def _descriptors(self, memory: Memory, size: int) -> Any:
        kind = "DRAM" if memory.device == "cpu" else "VRAM"
        return self._agent.get_xfer_descs([(memory.pointer, size, 0)], kind)

    def _register(self, memory: Memory) -> Any:
        kind = "DRAM" if memory.device == "cpu" else "VRAM"
        region = [(memory.pointer, memory.size, 0, "")]
        return self._agent.register_memory(region, kind)

    def own(self, memory: Memory, sizes: list[int]) -> dict[str, list[str]]:
        """Return what a mover needs, by direction, for each size."""
        self._register(memory)
        told = self._agent.get_agent_metadata()
        needed = [
            base64.b64encode(pickle.dumps((told, self._descriptors(memory, size)))).decode()
            for size in sizes
        ]
        return dict.fromkeys(DIRECTIONS, needed)

    def movers(self, direction: str, memory: Memory, told: list[str], sizes: list[int]) -> Movers:
        """Return for each size what moves so many bytes, and waits."""
        self._register(memory)
        movers = []
        for size, text in zip(sizes, told, strict=True):
            metadata, remote = pickle.loads(base64.b64decode(text))
            peer = self._agent.add_remote_agent(metadata)
            local = self._descriptors(memory, size)
            request = self._agent.initialize_xfer(direction.upper(), local, remote, peer, b"")
            movers.append(self._mover(request))
        return movers

    def _mover(self, transfer: Any) -> Callable[[], None]:
        def move() -> None:
            state = self._agent.transfer(transfer)
            while state == "PROC":
                state = self._agent.check_xfer_state(transfer)
            if state != "DONE":
                raise RuntimeError(f"transfer ended as {state}")

        return move


class NixlAsOurs(Nixl):
    """The same, with the settings that this library gives UCX."""

    @staticmethod
    def parameters() -> dict[str, str]:
        """Return what the transport is given."""
        parameters = ucx.with_defaults(b"UCX", {})
        return {key.decode(): value.decode() for key, value in parameters.items()}


class Ours:
    """The library of this repository: prepared transfers."""

    def __init__(self, name: str, *, owner: bool) -> None:
        self._connector = nixl_connect.Connector(name)
        self._operations: list[Any] = []

    def close(self) -> None:
        """End the operations, while the owner is there to be told."""
        self._connector.close_blocking()

    def _descriptor(self, memory: Memory) -> nixl_connect.Descriptor:
        descriptor = nixl_connect.Descriptor(
            (memory.pointer, memory.size, memory.device, memory),
            stream=None if memory.device == "cpu" else -1,
        )
        descriptor.register_memory(self._connector)
        return descriptor

    def own(self, memory: Memory, sizes: list[int]) -> dict[str, list[str]]:
        """Return what a mover needs, by direction, for each size."""
        whole = self._descriptor(memory)
        make = {
            "read": self._connector.create_readable_blocking,
            "write": self._connector.create_writable_blocking,
        }
        told: dict[str, list[str]] = {}
        for direction in DIRECTIONS:
            made = [make[direction](whole.slice(0, size), timeout=3600) for size in sizes]
            self._operations += made
            told[direction] = [operation.metadata().model_dump_json() for operation in made]
        return told

    def movers(self, direction: str, memory: Memory, told: list[str], sizes: list[int]) -> Movers:
        """Return for each size what moves so many bytes, and waits."""
        whole = self._descriptor(memory)
        movers = []
        for size, text in zip(sizes, told, strict=True):
            metadata = nixl_connect.RdmaMetadata.model_validate_json(text)
            mine = whole.slice(0, size)
            if direction == "read":
                operation: Any = self._connector.prepare_read_blocking(metadata, mine)
            else:
                operation = self._connector.prepare_write_blocking(mine, metadata)
            self._operations.append(operation)
            movers.append(operation.transfer_blocking)
        return movers


Movers = list[Callable[[], Any]]
SUBJECTS: dict[str, Any] = {"nixl": Nixl, "nixl_as_ours": NixlAsOurs, "nixl_connect": Ours}
TITLES = ("NIXL as it comes", "NIXL, same settings", "nixl_connect")


def own(subject: str, kind: str, sizes: list[int]) -> None:
    """Own memory, and fill, clear or compare it as standard input says, until that ends."""
    memory = Memory(kind, max(sizes))
    side = SUBJECTS[subject](f"{subject}-owner", owner=True)
    print(json.dumps(side.own(memory, sizes)), flush=True)
    for line in sys.stdin:
        command, *size = line.split()
        getattr(memory, command)(*map(int, size))
        print("{}", flush=True)


class Owner:
    """A process that owns memory for a subject."""

    def __init__(self, subject: str, kind: str, sizes: list[int]) -> None:
        command = [sys.executable, __file__, subject, kind, *map(str, sizes)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.told: dict[str, list[str]] = self._answer()

    def _answer(self) -> Any:
        """Return what it says, among what UCX may log on the same stream."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"the owner ended with {self._process.wait(60)}")

    def do(self, command: str) -> None:
        """Have it do something with its memory, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        self._answer()

    def end(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


if __name__ == "__main__":
    own(sys.argv[1], sys.argv[2], [int(size) for size in sys.argv[3:]])

"""The second process of the GPU's tests: as peer.py, with buffers where it is told."""

import hashlib
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import peer
from gpu_api import Gpu, Memory

import nixl_connect as nc

# How much is made and compared at a time: not a power of two, so that bytes that are misplaced by
# one are found.
CHUNK = (64 << 20) - 5


def chunks(seed: int, size: int):
    """Yield the offset and the bytes of each piece of what follows from a seed."""
    block = peer.content(seed, min(size, CHUNK))
    for at in range(0, size, CHUNK):
        yield at, block[: size - at]


def expected(seed: int, size: int) -> str:
    """Return the SHA-256 of what follows from a seed."""
    hashed = hashlib.sha256()
    for _, part in chunks(seed, size):
        hashed.update(part)
    return hashed.hexdigest()


class GpuPeer(peer.Peer):
    """Has its buffers in the memory that `use` names."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = "cpu"

    def use(self, kind: str, number: int = 0) -> dict:
        """Have what comes in memory of a kind of `gpu.KINDS`, of a device, or "cpu"."""
        self.kind = kind
        if kind != "cpu":
            self.gpu = Gpu(number)
        return {}

    def _buffer(self, size: int, seed: int | None) -> "np.ndarray | Memory":
        """Return memory, filled from the seed or with zeros."""
        if self.kind == "cpu":
            memory = np.zeros(size, np.uint8)
            for at, part in chunks(seed, size) if seed is not None else ():
                memory[at : at + len(part)] = part
            return memory
        memory = self.gpu.memory(size, self.kind)
        memory.clear()
        for at, part in chunks(seed, size) if seed is not None else ():
            memory.write(part, at)
        return memory

    def _digest(self, memory: "np.ndarray | Memory") -> str:
        """Return the SHA-256 of a buffer."""
        if isinstance(memory, np.ndarray):
            return peer.digest(memory)
        hashed = hashlib.sha256()
        for at in range(0, memory.size, CHUNK):
            hashed.update(memory.read(at, min(CHUNK, memory.size - at)))
        return hashed.hexdigest()

    def mixed(self, size: int) -> dict:
        """Make one operation of memory of the host and of a device."""
        items = [nc.Descriptor(np.zeros(size, np.uint8)), nc.Descriptor(self._buffer(size, None))]
        self.connector.create_readable_blocking(items)
        return {}

    def free_bytes(self) -> dict:
        """Tell how much memory of the device is free."""
        return {"bytes": self.gpu.free_bytes}


if __name__ == "__main__":
    peer.main(GpuPeer())

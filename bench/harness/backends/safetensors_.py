"""Arrays in a file of safetensors on a RAM disk: written, loaded, removed."""

from __future__ import annotations

import asyncio
import os
import pickle
from typing import Any

import safetensors
from safetensors.numpy import load_file, save_file

from harness.backends import shm


class Backend(shm.Backend):
    """The passive side is told as in `shm`."""

    version = f"safetensors {safetensors.__version__}, a file in /dev/shm"

    async def offer_arrays(self, arrays: dict[str, Any]) -> tuple[Any, bytes]:
        """Write a file."""
        key = next(self._keys).to_bytes(8, "little")
        told = self._offers[key] = asyncio.get_running_loop().create_future()
        path = f"/dev/shm/nixl-connect-bench-{os.getpid()}-{key.hex()}"
        save_file(arrays, path)
        return shm.Offered(told, None), pickle.dumps((path, self._address, key))

    async def fetch_arrays(self, message: bytes) -> dict[str, Any]:
        """Load it, and remove it."""
        path, address, key = pickle.loads(message)
        arrays: dict[str, Any] = load_file(path)
        os.unlink(path)  # noqa: PTH108, which ASYNC240 forbids
        self._socket.sendto(key, address)
        return arrays

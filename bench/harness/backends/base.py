"""The interface of what is measured: one side of a pair of processes."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]

WARM_UP = 20
"""Rounds of `Base.pairs` that make the connection, and fill caches."""


def touched(size: int) -> Bytes:
    """Return memory whose pages exist."""
    block = np.empty(size, np.uint8)
    block[::4096] = 0
    return block


class Base(ABC):
    """One side: passive (owns memory and offers it) or active (fetches what was offered).

    Buffers are NumPy arrays of bytes for all, so that workloads can fill and compare them; a
    backend that needs another type wraps them, without a copy, and pays for that.
    """

    version = ""
    """What is measured, with its version."""

    prepares = False
    """Whether one transfer can be posted again: `prepare` and `repost`."""

    _rooms: tuple[bytes, list[tuple[Bytes, Any]]] | None = None
    """Memory for named arrays: their manifest; for each, its bytes and what keeps it registered."""

    async def open(self, name: str) -> None:  # noqa: B027, nor to start
        """Start. `name` is unique among the processes of a run."""

    def register(self, buffer: Bytes) -> Any:  # noqa: B027, nor to register
        """Register memory in advance, whose parts will be offered or fetched into.

        Returns what keeps it registered. Does nothing where there is no such thing.
        """

    @abstractmethod
    async def offer(self, buffers: list[Bytes]) -> tuple[Any, bytes]:
        """Offer memory; return a handle, and the message that the active side needs."""

    @abstractmethod
    async def told(self, handle: Any) -> None:
        """Wait until the other side has fetched what was offered."""

    @abstractmethod
    async def fetch(self, message: bytes, buffers: list[Bytes]) -> None:
        """Parse the message, fetch what it offers into `buffers`, and tell the passive side."""

    async def offer_blocks(self, memory: Bytes, size: int, indices: Indices) -> tuple[Any, bytes]:
        """Offer blocks of so many bytes of registered memory, in the order of their indices."""
        raise NotImplementedError

    async def fetch_blocks(
        self, message: bytes, memory: Bytes, size: int, indices: Indices
    ) -> None:
        """Fetch blocks into blocks of registered memory."""
        raise NotImplementedError

    async def offer_arrays(self, arrays: dict[str, Any]) -> tuple[Any, bytes]:
        """Offer named arrays; return a handle, and the message. Here: with a manifest by hand."""
        said = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
        manifest = json.dumps(said).encode()
        handle, message = await self.offer(
            [array.reshape(-1).view(np.uint8) for array in arrays.values()]
        )
        return handle, len(manifest).to_bytes(4, "little") + manifest + message

    async def fetch_arrays(self, message: bytes) -> dict[str, Any]:
        """Fetch named arrays. Here: into memory that is kept, and registered where that exists."""
        end = 4 + int.from_bytes(message[:4], "little")
        manifest = message[4:end]
        if self._rooms is None or self._rooms[0] != manifest:
            rooms = []
            for _, kind, shape in json.loads(manifest):
                room = touched(int(np.prod(shape)) * np.dtype(kind).itemsize)
                rooms.append((room, self.register(room)))
            self._rooms = manifest, rooms
        buffers = [room for room, _ in self._rooms[1]]
        await self.fetch(message[end:], buffers)
        return {
            name: room.view(kind).reshape(shape)
            for (name, kind, shape), room in zip(json.loads(manifest), buffers, strict=True)
        }

    def forget_arrays(self) -> None:
        """Let go of memory that is kept for named arrays."""
        self._rooms = None

    def prepare(self, message: bytes, buffers: list[Bytes]) -> Any:
        """Prepare a transfer that can be posted again and again; return a handle."""
        raise NotImplementedError

    def repost(self, handle: Any) -> None:
        """Post a prepared transfer, and block until its bytes are here."""
        raise NotImplementedError

    def alone(self, rounds: int) -> dict[str, list[float]]:
        """Return seconds of what one process does by itself, by figure."""
        raise NotImplementedError

    async def pairs(self, rounds: int, size: int, memory: str, form: str) -> dict[str, list[float]]:
        """Return seconds of whole operations between two ends of this process, by stage.

        The two ends are made for this and closed afterwards, and the first `WARM_UP` rounds are
        left out. `form` is ``asyncio`` or ``blocking``, where there are both.
        """
        raise NotImplementedError

    async def close(self) -> None:  # noqa: B027, not all have something to stop
        """Stop."""

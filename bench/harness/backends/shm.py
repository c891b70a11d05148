"""Shared memory of the standard library: write into a segment, and copy out of it.

The passive side is told by a datagram of eight bytes over a socket of the host.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import platform
import socket
import sys
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any
from weakref import WeakSet

from harness.backends.base import Base, Bytes


class Backend(Base):
    """`multiprocessing.shared_memory`, a segment for each offer or each registered buffer."""

    version = f"shared memory, Python {platform.python_version()}"

    async def open(self, name: str) -> None:
        """Bind the socket that tells, in the namespace that needs no file."""
        self._keys = itertools.count()
        self._offers: dict[bytes, asyncio.Future[None]] = {}
        self._kept: WeakSet[_Segment] = WeakSet()
        self._attached: dict[str, SharedMemory] = {}
        self._address = f"\0{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        asyncio.get_running_loop().add_reader(self._socket, self._received)

    def register(self, buffer: Bytes) -> Any:
        """Keep one segment for all that is offered of the buffer."""
        segment = _Segment(buffer.nbytes, buffer)
        self._kept.add(segment)
        return segment

    async def offer(self, buffers: list[Bytes]) -> tuple[Any, bytes]:
        """Copy the buffers into a segment, and name it."""
        segment, start, kept = self._segment(buffers)
        end = start
        for buffer in buffers:
            segment.memory.buf[end : end + buffer.nbytes] = buffer
            end += buffer.nbytes
        key = next(self._keys).to_bytes(8, "little")
        told = self._offers[key] = asyncio.get_running_loop().create_future()
        message = pickle.dumps((segment.memory.name, start, kept, self._address, key))
        return Offered(told, segment), message

    async def told(self, handle: Any) -> None:
        """Wait for the datagram; remove the segment, unless it stays."""
        await handle.told
        del handle.segment

    def _received(self) -> None:
        """Take all datagrams that are there: a socket holds only a few."""
        while True:
            try:
                key = self._socket.recv(8, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self._offers.pop(key).set_result(None)

    async def fetch(self, message: bytes, buffers: list[Bytes]) -> None:
        """Attach, copy out, detach, and tell."""
        name, start, kept, address, key = pickle.loads(message)
        memory = self._attached.get(name) or _attach(name)
        for buffer in buffers:
            memoryview(buffer)[:] = memory.buf[start : start + buffer.nbytes]
            start += buffer.nbytes
        if kept:
            self._attached[name] = memory
        else:
            memory.close()
        # Blocks while the other side's socket is full, which empties it whatever we do.
        self._socket.sendto(key, address)

    async def close(self) -> None:
        """Close the socket, and detach."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        for memory in self._attached.values():
            memory.close()

    def _segment(self, buffers: list[Bytes]) -> tuple[_Segment, int, bool]:
        """Return a segment, where to begin in it, and whether it stays."""
        for segment in self._kept:
            start = _address(buffers[0]) - _address(segment.buffer)
            if 0 <= start < segment.buffer.nbytes:
                return segment, start, True
        return _Segment(sum(buffer.nbytes for buffer in buffers)), 0, False


@dataclass
class Offered:
    """What waits for its datagram, and keeps its segment."""

    told: asyncio.Future[None]
    segment: _Segment | None


class _Segment:
    """A segment; removed when nobody refers to it any more."""

    def __init__(self, size: int, buffer: Bytes | None = None) -> None:
        self.memory = SharedMemory(create=True, size=size)
        self.buffer = buffer

    def __del__(self) -> None:
        self.memory.close()
        self.memory.unlink()


def _attach(name: str) -> SharedMemory:
    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    memory = SharedMemory(name)
    # Before Python 3.13 whoever attaches is taken for an owner, and removes the segment at its end.
    resource_tracker.unregister(memory._name, "shared_memory")
    return memory


def _address(buffer: Bytes) -> int:
    return buffer.__array_interface__["data"][0]

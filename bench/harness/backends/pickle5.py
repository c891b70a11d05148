"""Pickle with buffers out of band (protocol 5), over a socket of the host."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import platform
import socket
import struct
from typing import Any

import numpy as np

from harness.backends.base import Base, Bytes

_HEAD = struct.Struct("<QQ")  # bytes of the pickle, and how many buffers


class Backend(Base):
    """Asks, receives each buffer into new memory, and answers with a byte."""

    version = f"pickle protocol 5, Unix socket, Python {platform.python_version()}"

    async def open(self, name: str) -> None:
        """Listen, in the namespace that needs no file."""
        self._loop = asyncio.get_running_loop()
        self._keys = itertools.count()
        self._offers: dict[bytes, tuple[Any, asyncio.Future[None]]] = {}
        self._address = f"\0{name}"
        self._peers: dict[str, socket.socket] = {}
        self._listening = _socket()
        self._listening.bind(self._address)
        self._listening.listen()
        self._tasks = [asyncio.ensure_future(self._accept())]

    async def offer_arrays(self, arrays: Any) -> tuple[Any, bytes]:
        """Keep them under a key."""
        key = next(self._keys).to_bytes(8, "little")
        told: asyncio.Future[None] = self._loop.create_future()
        self._offers[key] = arrays, told
        return told, key + self._address.encode()

    async def offer(self, buffers: list[Bytes]) -> tuple[Any, bytes]:
        """Keep them under a key."""
        return await self.offer_arrays(buffers)

    async def told(self, handle: Any) -> None:
        """Wait for the receiver's byte."""
        await handle

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listening)
            self._tasks.append(asyncio.ensure_future(self._serve(client)))

    async def _serve(self, client: socket.socket) -> None:
        key, answer = bytearray(8), bytearray(1)
        while await self._receive(client, key):
            arrays, told = self._offers.pop(bytes(key))
            parts: list[pickle.PickleBuffer] = []
            head = pickle.dumps(arrays, protocol=5, buffer_callback=parts.append)
            raw = [part.raw() for part in parts]
            sizes = struct.pack(f"<{len(raw)}Q", *(part.nbytes for part in raw))
            await self._loop.sock_sendall(client, _HEAD.pack(len(head), len(raw)) + sizes + head)
            for part in raw:
                await self._loop.sock_sendall(client, part)
            await self._receive(client, answer)
            told.set_result(None)

    async def fetch_arrays(self, message: bytes) -> Any:
        """Ask, receive, and answer."""
        peer = self._peers.get(message[8:].decode())
        if peer is None:
            peer = self._peers[message[8:].decode()] = _socket()
            await self._loop.sock_connect(peer, message[8:].decode())
        await self._loop.sock_sendall(peer, message[:8])
        start = bytearray(_HEAD.size)
        await self._receive(peer, start)
        size, count = _HEAD.unpack(start)
        rest = bytearray(8 * count + size)
        await self._receive(peer, rest)
        parts = [np.empty(n, np.uint8) for n in struct.unpack_from(f"<{count}Q", rest)]
        for part in parts:
            await self._receive(peer, part)
        arrays = pickle.loads(rest[8 * count :], buffers=parts)
        await self._loop.sock_sendall(peer, b"k")
        return arrays

    async def fetch(self, message: bytes, buffers: list[Bytes]) -> None:
        """Fetch, and copy."""
        for buffer, got in zip(buffers, await self.fetch_arrays(message), strict=True):
            buffer[:] = got

    async def _receive(self, peer: socket.socket, into: Any) -> bool:
        """Fill a buffer; return False if the peer has ended."""
        view = memoryview(into)
        while view.nbytes:
            size = await self._loop.sock_recv_into(peer, view)
            if not size:
                return False
            view = view[size:]
        return True

    async def close(self) -> None:
        """Close all sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in (self._listening, *self._peers.values()):
            each.close()


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    return made

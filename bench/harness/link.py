"""Messages over a stream socket: four bytes of length, then as many bytes.

Within asyncio a message costs one callback and one future, so that the sideband does not hide what
is measured. Every subject pays the same for it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque

_HEADER = 4


class Link(asyncio.BufferedProtocol):
    """One end of a sideband, within an event loop.

    It has a buffer of its own: asyncio's would be mapped and unmapped for every message.
    """

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._buffer = bytearray(65_536)
        self._pending = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._lost = False

    @classmethod
    async def over(cls, end: socket.socket) -> Link:
        """Return a link over a connected socket, which it takes over."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(cls, sock=end)
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        """Say where to put what comes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Cut what came into messages."""
        self._pending += memoryview(self._buffer)[:nbytes]
        at = 0
        while len(self._pending) - at >= _HEADER:
            start = at + _HEADER
            end = start + int.from_bytes(self._pending[at:start], "little")
            if len(self._pending) < end:
                break
            self._messages.append(bytes(self._pending[start:end]))
            at = end
        del self._pending[:at]
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def send(self, message: bytes) -> None:
        """Send a message; at once, where the socket takes it."""
        assert self._transport is not None
        self._transport.write(len(message).to_bytes(_HEADER, "little") + message)

    async def receive(self) -> bytes:
        """Wait for a message."""
        while not self._messages:
            if self._lost:
                raise EOFError("the other side is gone")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._messages.popleft()

    def close(self) -> None:
        """Close the socket."""
        assert self._transport is not None
        self._transport.close()


def send(end: socket.socket, message: bytes) -> None:
    """Send a message, blocking."""
    end.sendall(len(message).to_bytes(_HEADER, "little") + message)


def receive(end: socket.socket) -> bytes:
    """Receive a message, blocking for as long as the socket's timeout allows."""
    return _exactly(end, int.from_bytes(_exactly(end, _HEADER), "little"))


def _exactly(end: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = end.recv(count - len(data))
        if not part:
            raise EOFError("the other side is gone")
        data += part
    return bytes(data)

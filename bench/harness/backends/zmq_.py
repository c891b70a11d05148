"""ZeroMQ within asyncio, over `ipc`, its fastest transport between processes of one host.

The passive side answers requests for what it offers; it is told when the receiver says that it has
copied everything.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
from typing import Any

import numpy as np
import zmq
import zmq.asyncio

from harness.backends.base import Base, Bytes


class Backend(Base):
    """A ROUTER on the passive side, a DEALER for each peer on the active one; no copy to send."""

    version = f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}, ipc"

    async def open(self, name: str) -> None:
        """Bind the socket that answers, in the namespace that needs no file."""
        self._context = zmq.asyncio.Context()
        # A full queue of a ROUTER drops messages.
        self._context.setsockopt(zmq.SNDHWM, 0)
        self._context.setsockopt(zmq.RCVHWM, 0)
        self._context.setsockopt(zmq.LINGER, 0)
        self._keys = itertools.count()
        self._offers: dict[bytes, tuple[list[Bytes], asyncio.Future[None]]] = {}
        self._peers: dict[str, tuple[Any, dict[bytes, asyncio.Future[list[zmq.Frame]]]]] = {}
        self._address = f"ipc://@{name}"
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(self._address)
        self._tasks = [asyncio.ensure_future(self._answer())]

    async def offer(self, buffers: list[Bytes]) -> tuple[Any, bytes]:
        """Keep the buffers under a key."""
        key = next(self._keys).to_bytes(8, "little")
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._offers[key] = buffers, told
        return told, pickle.dumps((self._address, key))

    async def told(self, handle: Any) -> None:
        """Wait for the receiver's word."""
        await handle

    async def _answer(self) -> None:
        while True:
            peer, key, request = await self._router.recv_multipart()
            if request == b"get":
                buffers, _ = self._offers[key]
                await self._router.send_multipart([peer, key, *buffers], copy=False)
            else:
                self._offers.pop(key)[1].set_result(None)

    async def fetch(self, message: bytes, buffers: list[Bytes]) -> None:
        """Ask, copy out of the frames, and tell."""
        address, key = pickle.loads(message)
        if address not in self._peers:
            dealer = self._context.socket(zmq.DEALER)
            dealer.connect(address)
            self._peers[address] = dealer, {}
            self._tasks.append(asyncio.ensure_future(self._receive(*self._peers[address])))
        dealer, waiting = self._peers[address]
        waiting[key] = asyncio.get_running_loop().create_future()
        await dealer.send_multipart([key, b"get"])
        for buffer, frame in zip(buffers, await waiting[key], strict=True):
            buffer[:] = np.frombuffer(frame.buffer, np.uint8)
        del waiting[key]
        await dealer.send_multipart([key, b"got"])

    @staticmethod
    async def _receive(dealer: Any, waiting: dict[bytes, asyncio.Future[list[zmq.Frame]]]) -> None:
        while True:
            key, *frames = await dealer.recv_multipart(copy=False)
            waiting[key.bytes].set_result(frames)

    async def close(self) -> None:
        """Close all sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.destroy(linger=0)

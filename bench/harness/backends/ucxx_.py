"""UCXX within asyncio: tagged messages, received straight into the buffers.

Endpoints are made from worker addresses, without error handling: those that a listener makes use no
shared memory, and take twice as long for small messages and ten times as long for large ones.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
from typing import Any

import numpy as np

# Of variables that UCXX itself sets.
os.environ.setdefault("UCX_WARN_UNUSED_ENV_VARS", "n")
# Progress on the event loop, which spins: UCXX's own default, a thread, takes several times as
# long, and spins as well for as long as somebody waits.
os.environ.setdefault("UCXPY_PROGRESS_MODE", "polling")

import ucxx
from ucxx.types import Tag

from harness.backends.base import Base, Bytes

# Key of the offer, tag to answer with, and the address to answer to: size, and bytes to the end.
_REQUEST = struct.Struct("<QQH")
_REQUEST_SIZE = 1024
_ASK = Tag(0)


class Backend(Base):
    """UCXX's asyncio interface; the passive side sends when it is asked."""

    version = f"ucxx {ucxx.__version__}, UCX {ucxx.__ucx_version__}"

    async def open(self, name: str) -> None:
        """Start UCX, and answer."""
        ucxx.init()
        self._address = bytes(memoryview(ucxx.get_worker_address()))
        self._endpoints: dict[bytes, ucxx.core.Endpoint] = {}
        self._keys = itertools.count()
        self._tags = itertools.count(1)
        self._offers: dict[int, tuple[list[Bytes], asyncio.Future[None]]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._answering = asyncio.ensure_future(self._answer())

    async def offer(self, buffers: list[Bytes]) -> tuple[Any, bytes]:
        """Keep the buffers under a key."""
        key = next(self._keys)
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._offers[key] = buffers, told
        return told, key.to_bytes(8, "little") + self._address

    async def told(self, handle: Any) -> None:
        """Wait until all is sent."""
        await handle

    async def _answer(self) -> None:
        request = np.zeros(_REQUEST_SIZE, np.uint8)
        while True:
            await ucxx.recv(request, _ASK)
            key, tag, size = _REQUEST.unpack_from(request)
            address = request[_REQUEST.size : _REQUEST.size + size].tobytes()
            endpoint = await self._endpoint(address)
            task = asyncio.ensure_future(_send(endpoint, tag, *self._offers.pop(key)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def fetch(self, message: bytes, buffers: list[Bytes]) -> None:
        """Ask, and receive."""
        key, tag = int.from_bytes(message[:8], "little"), next(self._tags)
        endpoint = await self._endpoint(message[8:])
        request = _REQUEST.pack(key, tag, len(self._address)) + self._address
        await endpoint.send(request.ljust(_REQUEST_SIZE), _ASK, force_tag=True)
        # Those with the same tag arrive in their order.
        await asyncio.gather(*(endpoint.recv(b, Tag(tag), force_tag=True) for b in buffers))

    async def _endpoint(self, address: bytes) -> Any:
        """Return the endpoint to a peer, which stays."""
        if address not in self._endpoints:
            self._endpoints[address] = await ucxx.create_endpoint_from_worker_address(
                ucxx.get_ucx_address_from_buffer(np.frombuffer(address, np.uint8)),
                endpoint_error_handling=False,
            )
        return self._endpoints[address]

    async def close(self) -> None:
        """Close all endpoints."""
        self._answering.cancel()
        for endpoint in self._endpoints.values():
            endpoint.abort()


async def _send(endpoint: Any, tag: int, buffers: list[Bytes], told: asyncio.Future[None]) -> None:
    await asyncio.gather(*(endpoint.send(b, Tag(tag), force_tag=True) for b in buffers))
    told.set_result(None)

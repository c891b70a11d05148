"""The library of this repository, within asyncio, its metadata as JSON."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nixl_connect
from harness.backends.base import WARM_UP, Base, Bytes, Indices
from harness.backends.stages import Stages
from harness.memory import Memory, mark, verify
from nixl_connect import (
    Blocks,
    Connector,
    Descriptor,
    HostPool,
    RdmaMetadata,
    SerializedDescriptor,
)
from nixl_connect.arrays import fetch, offer


class Backend(Base):
    """The library of this repository."""

    version = f"nixl-connect {nixl_connect.__version__}"

    prepares = True

    async def open(self, name: str) -> None:
        """Open a connector."""
        self._connector = await Connector(name).open()
        self._pool: HostPool | None = None

    def register(self, buffer: Bytes) -> Any:
        """Register with the connector."""
        descriptor = Descriptor(buffer)
        descriptor.register_memory(self._connector)
        return descriptor

    async def offer(self, buffers: list[Bytes]) -> tuple[Any, bytes]:
        """Make a readable operation."""
        operation = await self._connector.create_readable([Descriptor(b) for b in buffers])
        return operation, operation.metadata().model_dump_json().encode()

    async def told(self, handle: Any) -> None:
        """Wait for it."""
        await handle.wait_for_completion()

    async def fetch(self, message: bytes, buffers: list[Bytes]) -> None:
        """Read."""
        metadata = RdmaMetadata.model_validate_json(message)
        operation = await self._connector.begin_read(metadata, [Descriptor(b) for b in buffers])
        await operation.wait_for_completion()

    async def offer_arrays(self, arrays: dict[str, Any]) -> tuple[Any, bytes]:
        """Offer them by name."""
        offered = await offer(self._connector, arrays)
        return offered.operation, offered.message().encode()

    async def fetch_arrays(self, message: bytes) -> dict[str, Any]:
        """Fetch them into a pool."""
        if self._pool is None:
            self._pool = HostPool(self._connector, max_bytes=2 << 30)
        arrays: dict[str, Any] = await fetch(self._connector, message, pool=self._pool)
        return arrays

    def forget_arrays(self) -> None:
        """Close the pool."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    async def offer_blocks(self, memory: Bytes, size: int, indices: Indices) -> tuple[Any, bytes]:
        """Make a readable operation of them, its metadata in the binary form."""
        operation = await self._connector.create_readable(Blocks(memory, size, indices))
        return operation, operation.metadata().to_bytes()

    async def fetch_blocks(
        self, message: bytes, memory: Bytes, size: int, indices: Indices
    ) -> None:
        """Read."""
        metadata = RdmaMetadata.from_bytes(message)
        operation = await self._connector.begin_read(metadata, Blocks(memory, size, indices))
        await operation.wait_for_completion()

    def prepare(self, message: bytes, buffers: list[Bytes]) -> Any:
        """Prepare a read."""
        metadata = RdmaMetadata.model_validate_json(message)
        return self._connector.prepare_read_blocking(metadata, [Descriptor(b) for b in buffers])

    def repost(self, handle: Any) -> None:
        """Read."""
        handle.transfer_blocking()

    def alone(self, rounds: int) -> dict[str, list[float]]:
        """JSON out and in of 1 and 10,000 descriptors; create beside 0 and 1,000 other regions."""
        item = SerializedDescriptor(device="cpu", ptr=1 << 40, size=4096)
        figures: dict[str, list[float]] = {}
        for count, times in ((1, rounds), (10_000, max(rounds // 100, 3))):
            metadata = RdmaMetadata(
                descriptors=[item] * count,
                nixl_metadata="b64:" + "A" * 600,
                notification_key="0" * 32,
                operation_kind=1,
            )
            figures[f"JSON, {count}"] = _time(functools.partial(_out_and_in, metadata), times)
        buffer, spread = Descriptor(bytearray(8)), np.zeros(64_000, np.uint8)
        for count in (0, 1000):
            others = [Descriptor(spread[64 * i : 64 * i + 8]) for i in range(count)]
            for other in others:
                other.register_memory(self._connector)
            figures[f"create, {count} others"] = _time(
                functools.partial(self._create, buffer), rounds
            )
        return figures

    def _create(self, buffer: Descriptor) -> None:
        with self._connector.create_readable_blocking(buffer) as operation:
            operation.metadata()

    async def pairs(self, rounds: int, size: int, memory: str, form: str) -> dict[str, list[float]]:
        """Offer and read, with the metadata as JSON."""
        if form == "asyncio":
            return await self._pairs(rounds, size, memory)
        # In a thread of its own: a program without asyncio has no loop either.
        return await asyncio.to_thread(self._pairs_blocking, rounds, size, memory)

    async def _pairs(self, rounds: int, size: int, memory: str) -> dict[str, list[float]]:
        stages, sources, targets = _work(self, size, memory)
        async with Connector() as owner, Connector() as mover:
            for number in range(rounds + WARM_UP):
                (source,), (target,) = sources.next(), targets.next()
                mark([source], number)
                stages.begin()
                offered = await owner.create_readable(Descriptor(source))
                stages.end("register")
                text = offered.metadata().model_dump_json()
                stages.end("describe")
                metadata = RdmaMetadata.model_validate_json(text)
                stages.end("load")
                read = await mover.begin_read(metadata, Descriptor(target))
                stages.end("begin")
                await read.wait_for_completion()
                stages.end("post")
                await offered.wait_for_completion()
                stages.end("told")
                del read, offered
                await asyncio.sleep(0)  # what they held goes after their waiters have run
                stages.end("release")
                verify([target], number)
                if number >= WARM_UP:
                    stages.keep()
        return stages.samples

    def _pairs_blocking(self, rounds: int, size: int, memory: str) -> dict[str, list[float]]:
        stages, sources, targets = _work(self, size, memory)
        with Connector() as owner, Connector() as mover:
            for number in range(rounds + WARM_UP):
                (source,), (target,) = sources.next(), targets.next()
                mark([source], number)
                stages.begin()
                offered = owner.create_readable_blocking(Descriptor(source))
                stages.end("register")
                text = offered.metadata().model_dump_json()
                stages.end("describe")
                metadata = RdmaMetadata.model_validate_json(text)
                stages.end("load")
                read = mover.begin_read_blocking(metadata, Descriptor(target))
                stages.end("begin")
                read.wait_for_completion_blocking()
                stages.end("post")
                offered.wait_for_completion_blocking()
                stages.end("told")
                del read, offered
                stages.end("release")
                verify([target], number)
                if number >= WARM_UP:
                    stages.keep()
        return stages.samples

    async def close(self) -> None:
        """Close the connector."""
        await self._connector.close()


def _work(backend: Backend, size: int, memory: str) -> tuple[Stages, Memory, Memory]:
    return Stages(), Memory(backend, memory, size, 1), Memory(backend, memory, size, 1)


def _out_and_in(metadata: RdmaMetadata) -> None:
    RdmaMetadata.model_validate_json(metadata.model_dump_json())


def _time(work: Callable[[], object], times: int) -> list[float]:
    samples = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        samples.append(time.perf_counter() - began)
    return samples

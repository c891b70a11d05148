"""One side of the demo: lends memory, moves data, and tells the hash of what it has."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple, Protocol, cast

import nixl_connect as nc
from nixl_connect.cli.demo import payload
from nixl_connect.cli.demo.payload import Arena, Bytes
from nixl_connect.cli.demo.plan import Operation, Row, Side, make_operations, make_rows


class Moved(NamedTuple):
    """What the mover has to tell."""

    seconds: float
    """From ``begin_read`` or ``begin_write`` to completion."""

    digest: str
    """Of the mover's memory: before the transfer in the source, after it in the target."""


class Partner(Protocol):
    """A side, here or behind HTTP."""

    async def lend(self, index: int) -> dict[str, Any]:
        """Create the passive operation of a transfer, and return its metadata."""

    async def move(self, index: int, metadata: dict[str, Any]) -> Moved:
        """Run the active operation of a transfer."""

    async def settle(self, index: int) -> str:
        """Await the passive operation; return the digest of the lent memory, as for `Moved`."""


class LocalSide:
    """The side of this process.

    Parameters
    ----------
    side : str
        Which one.
    config : dict
        ``size``, ``seed``, ``timeout`` and ``key``, the same on both sides.
    """

    def __init__(self, side: Side, config: dict[str, Any]) -> None:
        self.side = side
        self.rows: list[Row] = make_rows(config["size"])
        self.operations: list[Operation] = make_operations(self.rows)
        self.seed: int = config["seed"]
        self.timeout: float = config["timeout"]
        self.connector: nc.Connector = nc.Connector(
            keys=bytes.fromhex(config["key"]), timeout=self.timeout, quarantine=0
        )
        self._arena = Arena(operation.sizes for operation in self.operations)
        self._whole = nc.Descriptor(self._arena.memory)
        self._lent: tuple[nc.PassiveOperation, list[Bytes], str] | None = None

    async def open(self) -> dict[str, Any]:
        """Start NIXL, register the buffer once for all, and tell which library it is."""
        await asyncio.to_thread(self._whole.register_memory, self.connector)
        return cast("dict[str, Any]", self.connector.stats()["library"])

    async def close(self) -> None:
        """Give everything back."""
        await self.connector.close()

    async def lend(self, index: int) -> dict[str, Any]:
        """Create the passive operation of a transfer, and return its metadata."""
        operation = self.operations[index]
        regions, digest = await asyncio.to_thread(self._prepare, operation)
        descriptors = [nc.Descriptor(region) for region in regions]
        passive: nc.PassiveOperation
        if operation.row.kind == "read":
            passive = await self.connector.create_readable(descriptors)
        else:
            passive = await self.connector.create_writable(descriptors)
        self._lent = passive, regions, digest
        return passive.metadata().model_dump()

    async def move(self, index: int, metadata: dict[str, Any]) -> Moved:
        """Run the active operation of a transfer."""
        operation = self.operations[index]
        remote: nc.RdmaMetadata = nc.RdmaMetadata.model_validate(metadata)
        regions, digest = await asyncio.to_thread(self._prepare, operation)
        descriptors = [nc.Descriptor(region) for region in regions]
        active: nc.ActiveOperation
        start = time.perf_counter()
        if operation.row.kind == "read":
            active = await self.connector.begin_read(remote, descriptors)
        else:
            active = await self.connector.begin_write(descriptors, remote)
        async with active:
            await active.wait_for_completion(self.timeout)
            seconds = time.perf_counter() - start
        if operation.row.target == self.side:
            digest = await asyncio.to_thread(payload.digest, regions)
        return Moved(seconds, digest)

    async def settle(self, index: int) -> str:
        """Await the passive operation; return the digest of the lent memory."""
        if self._lent is None:
            raise RuntimeError(f"operation {index} was not lent")
        passive, regions, digest = self._lent
        self._lent = None
        async with passive:
            await passive.wait_for_completion(self.timeout)
        if self.operations[index].row.target == self.side:
            digest = await asyncio.to_thread(payload.digest, regions)
        return digest

    def _prepare(self, operation: Operation) -> tuple[list[Bytes], str]:
        """Fill the source and hash it, or clear the target."""
        regions = self._arena.regions(operation.sizes)
        if operation.row.source == self.side:
            payload.fill(regions, self.seed, operation.index)
            return regions, payload.digest(regions)
        payload.clear(regions)
        return regions, ""

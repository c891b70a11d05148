"""NIXL's own Python API, within asyncio, by a program that spins while it waits.

Metadata names the region of an offer only; the message is a pickle, as NIXL's own serialisation of
descriptors is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
from importlib.metadata import version
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import numpy as np

try:
    from nixl_cu12 import _api as nixl
except ImportError:
    from nixl_cu13 import _api as nixl

from harness.backends.base import WARM_UP, Base, Bytes, Indices
from harness.backends.stages import Stages
from harness.memory import Memory, mark, verify

# NIXL sets its logger up at its import, to tell of every agent.
logging.getLogger("nixl").setLevel(logging.WARNING)


class Backend(Base):
    """NIXL's `nixl_agent` with UCX."""

    version = f"nixl {version(nixl.__package__.replace('_', '-'))}, Python API"
    prepares = True

    async def open(self, name: str) -> None:
        """Make an agent."""
        self._name, self._runs = name, itertools.count()
        self._agent = self._agent_named(name)
        self._keys = itertools.count()
        self._regions: WeakSet[_Region] = WeakSet()
        self._offers: WeakValueDictionary[bytes, _Offer] = WeakValueDictionary()
        self._poller: asyncio.Task[None] | None = None

    @staticmethod
    def _agent_named(name: str) -> Any:
        # Whoever waits here polls, and a poll drives UCX: NIXL's own thread, which spins too, would
        # only take a core from the other process.
        config = nixl.nixl_agent_config(enable_prog_thread=False, backends=["UCX"])
        return nixl.nixl_agent(name, config)

    def register(self, buffer: Bytes) -> Any:
        """Register with the agent."""
        region = _Region(self._agent, [buffer])
        self._regions.add(region)
        return region

    async def offer(self, buffers: list[Bytes]) -> tuple[Any, bytes]:
        """Register where need be, and name the region in metadata with connection info."""
        return self._offer(buffers, self._descriptors(buffers))

    async def offer_blocks(self, memory: Bytes, size: int, indices: Indices) -> tuple[Any, bytes]:
        """Name them as rows of an array, which NIXL takes as it is."""
        return self._offer([memory], self._blocks(memory, size, indices))

    def _offer(self, buffers: list[Bytes], descriptors: Any) -> tuple[Any, bytes]:
        offer = _Offer(self._region(buffers))
        key = next(self._keys).to_bytes(8, "little")
        self._offers[key] = offer
        if self._poller is None or self._poller.done():
            self._poller = asyncio.ensure_future(self._poll())
        return offer, pickle.dumps((offer.region.metadata(), descriptors, key))

    async def told(self, handle: Any) -> None:
        """Wait until the poller has seen the notification; deregister what was not before."""
        await handle.told
        del handle.region

    async def _poll(self) -> None:
        """Spin for as long as something is on offer, for all who wait."""
        while self._offers:
            for keys in self._agent.get_new_notifs().values():
                for key in keys:
                    self._offers.pop(key).told.set_result(None)
            await asyncio.sleep(0)

    async def fetch(self, message: bytes, buffers: list[Bytes]) -> None:
        """Read, with the offer's key as the notification, and spin."""
        await self._fetch(message, buffers, self._descriptors(buffers))

    async def fetch_blocks(
        self, message: bytes, memory: Bytes, size: int, indices: Indices
    ) -> None:
        """Read, likewise."""
        await self._fetch(message, [memory], self._blocks(memory, size, indices))

    async def _fetch(self, message: bytes, buffers: list[Bytes], local: Any) -> None:
        metadata, remote, key = pickle.loads(message)
        region = self._region(buffers)
        transfer = self._initialize(metadata, remote, local, key)
        state = self._agent.transfer(transfer)
        while state == "PROC":
            await asyncio.sleep(0)
            state = self._agent.check_xfer_state(transfer)
        transfer.release()
        del region
        if state != "DONE":
            raise RuntimeError(f"transfer ended as {state}")

    def prepare(self, message: bytes, buffers: list[Bytes]) -> Any:
        """Make the request of a transfer, without a notification."""
        metadata, remote, _ = pickle.loads(message)
        region = self._region(buffers)
        return self._initialize(metadata, remote, self._descriptors(buffers), b""), region

    def repost(self, handle: Any) -> None:
        """Post the request, and spin."""
        transfer, _ = handle
        state = self._agent.transfer(transfer)
        while state == "PROC":
            state = self._agent.check_xfer_state(transfer)
        if state != "DONE":
            raise RuntimeError(f"transfer ended as {state}")

    async def pairs(self, rounds: int, size: int, memory: str, form: str) -> dict[str, list[float]]:
        """Do as the floor does. Nothing is serialised but what NIXL makes; there is one form."""
        number = next(self._runs)
        owner, mover = (self._agent_named(f"{self._name}-{end}{number}") for end in "om")
        sources, targets = (Memory(self, memory, size, 1) for _ in range(2))
        stages = Stages()
        for number in range(rounds + WARM_UP):
            (source,), (target,) = sources.next(), targets.next()
            mark([source], number)
            stages.begin()
            _pair(owner, mover, source, target, number.to_bytes(8, "little"), stages)
            verify([target], number)
            if number >= WARM_UP:
                stages.keep()
        return stages.samples

    async def close(self) -> None:
        """Stop polling."""
        if self._poller is not None:
            self._poller.cancel()

    def _initialize(self, metadata: bytes, remote: Any, local: Any, key: bytes) -> Any:
        peer = self._agent.add_remote_agent(metadata)
        return self._agent.initialize_xfer("READ", local, remote, peer, key)

    def _blocks(self, memory: Bytes, size: int, indices: Indices) -> Any:
        rows = np.zeros((len(indices), 3), np.uint64)
        rows[:, 0] = _span(memory)[0] + indices * size
        rows[:, 1] = size
        return self._agent.get_xfer_descs(rows, "DRAM")

    def _descriptors(self, buffers: list[Bytes]) -> Any:
        return self._agent.get_xfer_descs([(*_span(b), 0) for b in buffers], "DRAM")

    def _region(self, buffers: list[Bytes]) -> _Region:
        """Return the region that was registered in advance, or register."""
        for region in self._regions:
            if region.covers(buffers):
                return region
        return _Region(self._agent, buffers)


class _Region:
    """Registered memory; deregistered when nobody refers to it any more."""

    def __init__(self, agent: Any, buffers: list[Bytes]) -> None:
        self._agent = agent
        self._buffers = buffers
        self._metadata = b""
        spans = [_span(buffer) for buffer in buffers]
        self._start, self._end = spans[0][0], sum(spans[0])
        self._registered = agent.register_memory([(*span, 0, "") for span in spans], "DRAM")

    def __del__(self) -> None:
        self._agent.deregister_memory(self._registered)

    def covers(self, buffers: list[Bytes]) -> bool:
        """Return whether all of it lies in the region, which is one buffer."""
        return all(
            self._start <= start and start + size <= self._end
            for start, size in map(_span, buffers)
        )

    def metadata(self) -> bytes:
        """Return what a peer needs to read from the region; the same each time."""
        if not self._metadata:
            self._metadata = self._agent.get_partial_agent_metadata(self._registered, True)
        return self._metadata


class _Offer:
    """What is on offer, until it goes or was read."""

    def __init__(self, region: _Region) -> None:
        self.region = region
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()


def _pair(owner: Any, mover: Any, source: Bytes, target: Bytes, key: bytes, stages: Stages) -> None:
    """Offer and read between two agents, which this thread lets progress."""
    span, wanted_span = _span(source), _span(target)
    offered = owner.register_memory([(*span, 0, "")], "DRAM")
    remote = owner.get_xfer_descs([(*span, 0)], "DRAM")
    stages.end("register")
    metadata = owner.get_partial_agent_metadata(offered, True)
    stages.end("describe")
    peer = mover.add_remote_agent(metadata)
    stages.end("load")
    wanted = mover.register_memory([(*wanted_span, 0, "")], "DRAM")
    stages.end("destination")
    local = mover.get_xfer_descs([(*wanted_span, 0)], "DRAM")
    transfer = mover.initialize_xfer("READ", local, remote, peer, key)
    stages.end("request")
    told = {}
    state = mover.transfer(transfer)
    while state == "PROC":
        told = told or owner.get_new_notifs()
        state = mover.check_xfer_state(transfer)
    if state != "DONE":
        raise RuntimeError(f"transfer ended as {state}")
    stages.end("post")
    while not told:
        told = owner.get_new_notifs()
        mover.check_xfer_state(transfer)
    if list(told.values()) != [[key]]:
        raise RuntimeError(f"told {told}, not {key!r}")
    stages.end("told")
    transfer.release()
    mover.deregister_memory(wanted)
    owner.deregister_memory(offered)
    stages.end("release")


def _span(buffer: Bytes) -> tuple[int, int]:
    """Return address and size."""
    return buffer.__array_interface__["data"][0], buffer.nbytes

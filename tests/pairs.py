"""A pair: memory is offered and read within this process, and both sides are told; and reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from processes import until

import nixl_connect as nc

Memory = nc.Descriptor | Sequence[nc.Descriptor]


def blocking(owner: nc.Connector, mover: nc.Connector, source: Memory, target: Memory) -> None:
    """Do it without a loop."""
    readable = owner.create_readable_blocking(source)
    text = readable.metadata().model_dump_json()
    metadata = nc.RdmaMetadata.model_validate_json(text)
    read = mover.begin_read_blocking(metadata, target)
    read.wait_for_completion_blocking()
    readable.wait_for_completion_blocking()


async def within_asyncio(
    owner: nc.Connector, mover: nc.Connector, source: Memory, target: Memory
) -> None:
    """Do it on a loop, and let go of what was held."""
    readable = await owner.create_readable(source)
    text = readable.metadata().model_dump_json()
    metadata = nc.RdmaMetadata.model_validate_json(text)
    read = await mover.begin_read(metadata, target)
    await read.wait_for_completion()
    await readable.wait_for_completion()
    del read, readable
    await asyncio.sleep(0)  # it goes after the waiters have run


def settle(connectors: Sequence[nc.Connector]) -> None:
    """Wait until nothing is registered any more, which would spare the next pair some work.

    However long that takes, the next pair comes over a connection that is in use.
    """
    until(lambda: not any(item.stats()["registrations"]["count"] for item in connectors))
    for connector in connectors:
        for peer in connector._open()._engine.peers.known():
            peer.last_used += 3600  # it is not quiet, and so not looked at


def read(
    connector: nc.Connector, told: dict[str, Any], array: object, **options: Any
) -> nc.ReadOperation:
    """Begin reading memory of another process into an array, as its metadata in a dict has it."""
    metadata = nc.RdmaMetadata.model_validate(told)
    return connector.begin_read_blocking(metadata, nc.Descriptor(array), **options)

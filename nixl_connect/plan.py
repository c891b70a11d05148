"""What a transfer is between: memory of this process, and memory of a peer."""

from __future__ import annotations

from typing import Any, NamedTuple

from nixl_connect._native.envelope import Envelope
from nixl_connect._native.packing import Regions


class Local(NamedTuple):
    """Memory of this process that an operation uses, all of one kind."""

    regions: Regions
    registered: Regions
    """What to register for them: the same, but for blocks the whole that they are in."""

    mem_type: int
    memory: list[Any]
    """What keeps it alive."""


class Target(NamedTuple):
    """Memory of a peer, all of one kind, and how to reach it."""

    regions: Regions
    mem_type: int
    described: Envelope
    """The peer's metadata, parsed."""

    blob: bytes
    """The same, as NIXL takes it."""

    key: bytes
    """What to notify the peer with."""


class Plan(NamedTuple):
    """A transfer, before it is made."""

    kind: int
    """NIXL's: 0 to read, 1 to write."""

    local: Local
    target: Target
    timeout: float
    """Seconds after which it fails; infinity for never."""

"""What a transfer is between: memory of this process, and memory of a peer."""

from __future__ import annotations

from typing import Any, NamedTuple

from nixl_connect._native.envelope import Envelope
from nixl_connect._native.packing import Regions
from nixl_connect.device import Device


class Local(NamedTuple):
    """Memory of this process that an operation uses."""

    rows: list[tuple[int, int, Device]]
    """Address, size and device of each region, all of one kind of memory."""

    memory: list[Any]
    """What keeps them alive."""

    @property
    def nbytes(self) -> int:
        """Size of all regions."""
        return sum(size for _, size, _ in self.rows)

    @property
    def mem_type(self) -> int:
        """NIXL's number for their kind of memory."""
        return self.rows[0][2].mem_type


class Target(NamedTuple):
    """Memory of a peer, and how to reach it."""

    regions: Regions
    mem_type: int
    described: Envelope
    """The peer's metadata, parsed."""

    blob: bytes
    """The same, as NIXL takes it."""

    key: bytes
    """What to notify the peer with."""

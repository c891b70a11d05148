# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What an operation is about: memory of this process, and of a peer."""

from typing import Final

from nixl_connect._native.envelope import Envelope
from nixl_connect._native.packing import Regions

class Local:
    """Memory of this process that an operation uses, all of one kind.

    Parameters
    ----------
    regions : Regions
        Its rows.
    registered : Regions
        What to register for them: the same, but for blocks the whole that they are in.
    mem_type : int
        NIXL's number of the memory type.
    memory : list
        What keeps it alive, for each row of `registered`.
    """

    regions: Final[Regions]
    registered: Final[Regions]
    mem_type: Final[int]

    def __init__(
        self, regions: Regions, registered: Regions, mem_type: int, memory: list[object]
    ) -> None: ...
    @property
    def memory(self) -> list[object]:
        """What keeps it alive."""

class Plan:
    """A transfer, before it is made.

    Parameters
    ----------
    kind : int
        NIXL's: 0 to read, 1 to write.
    local : Local
        Memory of this process.
    remote : Regions
        Memory of the peer, row by row.
    remote_mem : int
        Its memory type.
    described : Envelope
        The peer's metadata, parsed.
    blob : bytes
        The same, as NIXL takes it.
    key : bytes
        What to notify the peer with.
    timeout : float
        Seconds after which it fails; infinity for never.
    """

    kind: Final[int]
    local: Final[Local]
    remote: Final[Regions]
    remote_mem: Final[int]
    blob: Final[bytes]
    key: Final[bytes]
    timeout: Final[float]

    def __new__(
        cls,
        kind: int,
        local: Local,
        remote: Regions,
        remote_mem: int,
        described: Envelope,
        blob: bytes,
        key: bytes,
        timeout: float,
    ) -> Plan: ...
    @property
    def described(self) -> Envelope:
        """The peer's metadata, parsed."""

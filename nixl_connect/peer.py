"""A connection to a remote agent, and what is loaded over it."""

from __future__ import annotations

import time
from enum import Enum
from typing import Any

from nixl_connect._native.envelope import Envelope, Section
from nixl_connect._native.peer import PeerState
from nixl_connect._native.ranges import RangeMap
from nixl_connect.messenger import Acquaintance

# So much of a key says how it is read: which parts it has, and for which kind of memory. The rest
# are numbers. See `ucp_rkey_pack_common` of UCX.
_KEY_HEAD = 9


class Verdict(Enum):
    """What a connection is to metadata: it knows all, can be loaded with more, or is of no use."""

    KNOWN = 0
    NEW = 1
    CONFLICT = 2


class Peer(PeerState):
    """A connection to a remote agent.

    Parameters
    ----------
    name : str
        The agent's name.
    alias : bytes
        What NIXL calls it here.
    """

    __slots__ = (
        "acquaintance",
        "alias",
        "connections",
        "last_used",
        "ledgers",
        "name",
        "near",
        "regions",
        "shapes",
    )

    def __init__(self, name: str, alias: bytes) -> None:
        self.name: str = name
        self.alias: bytes = alias
        self.connections: dict[str, bytes] = {}
        self.ledgers: dict[tuple[str, int], dict[int, RangeMap]] = {}
        """What is loaded, with the keys: by backend and memory type, and device number."""
        self.regions: int = 0
        self.shapes: set[tuple[str, int, int, bytes]] = set()
        """What keys look like that NIXL has accepted."""
        self.last_used: float = time.monotonic()
        self.near: bool = False
        """Whether it had a doorbell on this host when it was connected."""
        self.acquaintance: Acquaintance | None = None
        """How the messenger knows it."""

    def leave(self, hold: Any = None) -> None:
        """Count a transfer out, as `PeerState.leave`."""
        self.last_used = time.monotonic()
        super().leave(hold)

    def compare(self, envelope: Envelope, limit: int) -> Verdict:
        """Compare metadata with what is loaded."""
        if self.broken:
            return Verdict.CONFLICT
        verdict = Verdict.KNOWN
        for backend, info in envelope.connections.items():
            known_info = self.connections.get(backend)
            if known_info is None:
                verdict = Verdict.NEW
            elif known_info != info:
                return Verdict.CONFLICT
        fresh = 0
        for section in envelope.sections:
            ledgers = self.ledgers.get((section.backend, section.mem_type), {})
            accepted = None
            for address, length, device, key in section.regions:
                ledger = ledgers.get(device)
                if ledger is not None:
                    end = address + length
                    if ledger.get(address, end) == key:
                        continue
                    if not ledger.admits(address, end, key):
                        return Verdict.CONFLICT
                # Where NIXL refuses one key of a peer it frees them all, in use or not.
                if key != accepted:
                    if self.regions and _shape(section, key) not in self.shapes:
                        return Verdict.CONFLICT
                    accepted = key
                verdict = Verdict.NEW
                fresh += 1
                if self.regions and self.regions + fresh > limit:
                    return Verdict.CONFLICT
        return verdict

    def note(self, envelope: Envelope) -> None:
        """Note that metadata has been loaded."""
        self.connections.update(envelope.connections)
        for section in envelope.sections:
            ledgers = self.ledgers.setdefault((section.backend, section.mem_type), {})
            noted = None
            for address, length, device, key in section.regions:
                if key != noted:
                    self.shapes.add(_shape(section, key))
                    noted = key
                ledger = ledgers.setdefault(device, RangeMap())
                if ledger.get(address, address + length) is None:
                    ledger.add(address, address + length, key)
                    self.regions += 1


def _shape(section: Section, key: bytes) -> tuple[str, int, int, bytes]:
    return section.backend, section.mem_type, len(key), key[:_KEY_HEAD]

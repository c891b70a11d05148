"""A connection to a remote agent, and what is loaded over it."""

from __future__ import annotations

import time

from nixl_connect._native.envelope import Envelope, Section
from nixl_connect._native.peer import PeerState
from nixl_connect.identity import SIZE
from nixl_connect.ledger import Ledger, Verdict
from nixl_connect.messenger import Acquaintance

# Where nothing was exchanged for so long (seconds), the connection is looked at before it is used.
_QUIET = 0.05


class Peer(PeerState):
    """A connection to a remote agent.

    Parameters
    ----------
    name : str
        The agent's name.
    alias : bytes
        What NIXL calls it here.
    identity : bytes, optional
        Which agent it is, see `identity`; by default nobody.
    """

    __slots__ = (
        "acquaintance",
        "alias",
        "connections",
        "identity",
        "lanes_failed",
        "ledger",
        "name",
        "near",
    )

    def __init__(self, name: str, alias: bytes, identity: bytes = bytes(SIZE)) -> None:
        self.name: str = name
        self.alias: bytes = alias
        self.identity: bytes = identity
        self.connections: dict[str, bytes] = {}
        self.ledger: Ledger = Ledger()
        """What is loaded over it."""
        self.near: bool = False
        """Whether it had its doorbell on this host when it was connected: as long as that is there,
        it is who it was."""
        self.lanes_failed: int = 0
        """How often lanes could not transfer with it, which the connection then did."""
        self.acquaintance: Acquaintance | None = None
        """How the messenger knows it."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has been exchanged for a while with another agent."""
        return (
            self.in_flight == 0
            and time.monotonic() > self.last_used + _QUIET
            and bool(self.connections)
        )

    def compare(self, envelope: Envelope, limit: int) -> tuple[Verdict, list[Section]]:
        """Compare metadata with what is loaded; see `Ledger.compare`."""
        if self.broken:
            return Verdict.CONFLICT, []
        verdict, missing = self.ledger.compare(envelope.sections, limit)
        for backend, info in envelope.connections.items():
            known_info = self.connections.get(backend)
            if known_info is None and verdict is Verdict.KNOWN:
                verdict = Verdict.NEW
            elif known_info is not None and known_info != info:
                return Verdict.CONFLICT, []
        return verdict, missing

    def note(self, envelope: Envelope, loaded: list[Section]) -> None:
        """Note that metadata has been loaded, as `compare` returned it."""
        self.connections.update(envelope.connections)
        self.ledger.note(loaded)

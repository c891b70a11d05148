"""A connection to a remote agent, and what is loaded over it."""

from __future__ import annotations

from nixl_connect._native.envelope import Envelope, Section
from nixl_connect._native.peer import PeerState
from nixl_connect.peers.ledger import Ledger, Verdict


class Peer(PeerState):
    """A connection to a remote agent.

    Parameters
    ----------
    alias, identity : bytes
        As for `PeerState`.
    name : str
        The agent's name.
    """

    __slots__ = ("ledger", "name")

    def __init__(self, alias: bytes, identity: bytes, name: str) -> None:  # noqa: ARG002
        self.name: str = name
        self.ledger: Ledger = Ledger()
        """What is loaded over it."""

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

    def has_loaded(self, envelope: Envelope) -> bool:
        """Whether all of some metadata is loaded.

        What is loaded stays so: no lock is needed to see it.
        """
        return self.compare(envelope, 0)[0] is Verdict.KNOWN

    def note(self, envelope: Envelope, loaded: list[Section]) -> None:
        """Note that metadata has been loaded, as `compare` returned it."""
        self.connections.update(envelope.connections)
        self.ledger.note(loaded)
        self.everywhere.update(self.ledger.everywhere)

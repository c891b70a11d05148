# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The ordinary call: an operation made and begun in one go, on whichever thread asks for it.

What it takes is at hand: the peer is connected and has this metadata loaded, the memory is
registered or small, and nothing keeps NIXL busy for long. Where that is not so, or anything fails,
all is undone and nothing is said: the patient way, in `starter`, does the same again, step by step,
with all that may be needed and with the words for what may be wrong.
"""

from collections.abc import Callable, Mapping

from nixl_connect._native.agent import Agent
from nixl_connect._native.collector import Collector
from nixl_connect._native.envelope import Envelope
from nixl_connect._native.lane import Lane
from nixl_connect._native.peer import PeerState
from nixl_connect._native.plan import Plan
from nixl_connect._native.reactor import Reactor
from nixl_connect._native.registry import Registry
from nixl_connect._native.used import UsedKeys

class Ordinary:
    """The ordinary call of one engine. Safe to call from any thread.

    Parameters
    ----------
    reactor, agent, registry, collector, used
        Those of the engine.
    peers : dict of str to PeerState
        Whom the agent knows, by their names; the engine's own.
    read : callable
        Returns NIXL's metadata of its wire form, as it is and parsed, or raises.
    quarantine : float
        Seconds for which the memory of what was abandoned is kept.
    most_quarantined : int
        Bytes of such memory from which on nothing is offered.
    inline : int
        Most bytes of a transfer that is posted on the caller's thread.
    large : int
        Bytes of a transfer from which on NIXL may take milliseconds for it at a stretch.
    shared, piece : int
        Bytes of a transfer, and of each of its pieces on average, from which on lanes move it.
    few : int
        Most regions of a peer's metadata for that.
    most_failures : int
        So often lanes may fail with a peer.
    most : int
        Most descriptors of an operation.
    timeout : float
        Seconds for operations that are given no timeout.
    sealed : bool
        Whether metadata is sealed, so that no offer is ordinary and no metadata plain.
    head : bytes
        The agent's metadata up to its sections.
    most_metadata : int
        Most bytes of a peer's metadata.
    is_debugging : callable
        Whether to tell what is begun.
    report : callable
        Is told it: the operation, of which kind it is, its bytes, and the peer's name if there is
        one.

    Attributes
    ----------
    closed : bool
        Whether the engine is closed, or closing.
    reference : weakref.ref or None
        Of the connection, which descriptors note.
    lanes : list of (Lane, Registry, dict of str to PeerState), or None
        The lanes that are open, each with what its agent has registered and whom it knows. None
        while they are not open and may be; empty where there can be none.
    """

    closed: bool
    reference: object
    lanes: list[tuple[Lane, Registry, Mapping[str, PeerState]]] | None

    def __new__(
        cls,
        reactor: Reactor,
        agent: Agent,
        registry: Registry,
        collector: Collector,
        used: UsedKeys,
        peers: Mapping[str, PeerState],
        read: Callable[[str], tuple[bytes, Envelope]],
        *,
        quarantine: float,
        most_quarantined: int,
        inline: int,
        large: int,
        shared: int,
        piece: int,
        few: int,
        most_failures: int,
        most: int,
        timeout: float,
        sealed: bool,
        head: bytes,
        most_metadata: int,
        is_debugging: object,
        report: object,
    ) -> Ordinary: ...
    def described(self, text: str) -> tuple[bytes, Envelope]:
        """Return a peer's metadata of its wire form, as it is and parsed.

        Peers hand out the same memory again and again: what is short is remembered when it comes
        for the second time; the patient way asks twice. Most of what comes once never comes again,
        and would only be work for the garbage collector.
        """

    @property
    def remembered(self) -> int:
        """How many texts."""

    def shares(self, plan: Plan, peer: PeerState) -> bool:
        """Whether a transfer is for lanes, if there are any: a long copy within this host."""

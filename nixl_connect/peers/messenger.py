"""Whom the messenger knows: the agent that tells peers when their bytes have been moved.

It is an agent apart, since a message and a transfer over one connection wait for each other. It
knows how to reach peers and nothing of their memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from nixl_connect._native.agent import Agent
from nixl_connect._native.capi import NativeError
from nixl_connect._native.envelope import Envelope, renamed
from nixl_connect.peers.scout import Scout

UNUSED = 0.02
"""Seconds after which a connection that was taken down is closed on the other side, too.

What UCX had still to say over it has been said by then.
"""

# How long (seconds) a new connection may take to be made. Until then messages go another way.
_INTRODUCTION = 0.25


class Acquaintance(NamedTuple):
    """A peer that the messenger has met.

    Attributes
    ----------
    alias : bytes
        What it calls the peer.
    connections : dict of str to bytes
        How it reaches it.
    reliable : float
        From when on that may be relied on, monotonic seconds.
    """

    alias: bytes
    connections: dict[str, bytes]
    reliable: float


class Messenger:
    """The peers of the messenger. Each is met by one thread at a time.

    Parameters
    ----------
    agent : Agent
        The messenger.
    introduced : callable
        Called when it has begun to connect to a peer.
    no_sections : bytes
        The end of metadata without regions.
    scout : Scout
        Goes first to peers that could not be connected before.
    """

    def __init__(
        self,
        agent: Agent,
        introduced: Callable[[], None],
        no_sections: bytes,
        scout: Scout,
    ) -> None:
        self._agent = agent
        self._introduced = introduced
        self._no_sections = no_sections
        self._scout = scout
        self._met: dict[str, Acquaintance] = {}

    def meet(self, peer: Envelope, blob: bytes, alias: bytes) -> Acquaintance:
        """Connect to a peer, unless that stands. To be followed by `keep` or `drop`.

        Parameters
        ----------
        peer, blob
            The peer's metadata, parsed and not.
        alias : bytes
            What to call it in the future.

        Raises
        ------
        NativeError
            NIXL refuses the connection info, or the peer cannot be reached.
        """
        known = self._met.get(peer.agent)
        if (
            known is not None
            and known.connections == peer.connections
            and self._agent.reaches(known.alias)
        ):
            return known
        self._scout.look(peer, blob)
        try:
            self._agent.load_remote(renamed(blob[: peer.sections_at] + self._no_sections, alias))
        except NativeError as error:
            self._scout.note(peer, error)
            raise
        self._scout.forget(peer)
        self._agent.reaches(alias)  # so that the connection is made now
        self._introduced()
        return Acquaintance(alias, peer.connections, time.monotonic() + _INTRODUCTION)

    def keep(self, name: str, met: Acquaintance) -> None:
        """Rely on whom `meet` returned, from now on; no more on whom it was before."""
        known = self._met.get(name)
        self._met[name] = met
        if known is not None and known is not met:
            self._disconnect(known)

    def drop(self, name: str, met: Acquaintance) -> None:
        """Disconnect whom `meet` returned, unless that is who was known before."""
        if self._met.get(name) is not met:
            self._disconnect(met)

    def hang_up(self) -> None:
        """Close what UCX has kept of connections that were taken down: nobody else uses them."""
        self._agent.hang_up(UNUSED)

    def forget(self, name: str) -> None:
        """Disconnect a peer, if it is known."""
        known = self._met.pop(name, None)
        if known is not None:
            self._disconnect(known)

    def _disconnect(self, known: Acquaintance) -> None:
        with contextlib.suppress(NativeError):  # NIXL may have dropped it already
            self._agent.invalidate_remote(known.alias)

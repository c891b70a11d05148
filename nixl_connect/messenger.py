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
    """

    def __init__(
        self,
        agent: Agent,
        introduced: Callable[[], None],
        no_sections: bytes,
    ) -> None:
        self._agent = agent
        self._introduced = introduced
        self._no_sections = no_sections
        self._met: dict[str, Acquaintance] = {}

    def meet(self, peer: Envelope, blob: bytes, alias: bytes) -> Acquaintance:
        """Connect to a peer, unless that stands.

        Parameters
        ----------
        peer, blob
            The peer's metadata, parsed and not.
        alias : bytes
            What to call it in the future.

        Raises
        ------
        NativeError
            NIXL refuses the connection info.
        """
        known = self._met.get(peer.agent)
        if known is not None:
            if known.connections == peer.connections and self._agent.reaches(known.alias):
                return known
            self.forget(peer.agent)
        self._agent.load_remote(renamed(blob[: peer.sections_at] + self._no_sections, alias))
        known = Acquaintance(alias, peer.connections, time.monotonic() + _INTRODUCTION)
        self._met[peer.agent] = known
        self._agent.reaches(alias)  # so that the connection is made now
        self._introduced()
        return known

    def forget(self, name: str) -> None:
        """Disconnect a peer, if it is known."""
        known = self._met.pop(name, None)
        if known is not None:
            with contextlib.suppress(NativeError):  # NIXL may have dropped it already
                self._agent.invalidate_remote(known.alias)

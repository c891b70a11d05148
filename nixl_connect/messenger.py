"""Whom the messenger knows: the agent that tells peers when their bytes have been moved.

It is an agent apart, since a message and a transfer over one connection wait for each other. It
knows how to reach peers and nothing of their memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from nixl_connect._native.agent import Agent
from nixl_connect._native.capi import NativeError
from nixl_connect._native.envelope import Envelope

# How long (seconds) a new connection may take to be made. Until then messages go another way.
_INTRODUCTION = 0.25


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
        self._met: dict[str, tuple[dict[str, bytes], float]] = {}

    def meet(self, peer: Envelope, blob: bytes) -> float:
        """Connect to a peer, unless that stands; return when to rely on it, monotonic seconds.

        Raises
        ------
        NativeError
            NIXL refuses the connection info.
        """
        name = peer.agent.encode()
        known = self._met.get(peer.agent)
        if known is not None:
            if known[0] == peer.connections and self._agent.reaches(name):
                return known[1]
            self.forget(peer.agent)
        self._agent.load_remote(blob[: peer.sections_at] + self._no_sections)
        reliable = time.monotonic() + _INTRODUCTION
        self._met[peer.agent] = peer.connections, reliable
        self._agent.reaches(name)  # so that the connection is made now
        self._introduced()
        return reliable

    def forget(self, name: str) -> None:
        """Disconnect a peer, if it is known."""
        if self._met.pop(name, None) is not None:
            with contextlib.suppress(NativeError):  # NIXL may have dropped it already
                self._agent.invalidate_remote(name.encode())

"""Whom the messenger knows: the agent that tells peers when their bytes have been moved.

It is an agent apart, since a message and a transfer over one connection wait for each other. It
knows how to reach peers and nothing of their memory.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from nixl_connect._native.agent import Agent, AgentClosedError
from nixl_connect._native.capi import NativeError
from nixl_connect._native.envelope import Envelope, renamed
from nixl_connect.backend import threads
from nixl_connect.backend.files import require_files
from nixl_connect.errors import BackendError
from nixl_connect.peers.peer import Peer
from nixl_connect.peers.scout import Scout

logger: logging.Logger = logging.getLogger(__name__)

UNUSED = 0.02
"""Seconds after which a connection that was taken down is closed on the other side, too.

What UCX had still to say over it has been said by then.
"""

# How long (seconds) a first transfer with a peer of this host has both sides to itself.
_FIRST = 0.05
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
    """The peers of the messenger. Those of other hosts are met before anything is moved.

    For one of this host, which is told by its doorbell as long as that is not full, nobody waits: a
    thread meets it, which ends when it has met all that it is to meet.

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
        # Reentrant: a signal handler may connect a peer, too.
        self._lock = threading.RLock()
        # Whom to meet, and from when on; None if there is no thread.
        self._to_meet: deque[tuple[float, Peer, Envelope, bytes]] | None = None

    def meet_soon(self, peer: Peer, envelope: Envelope, blob: bytes) -> None:
        """Meet a peer that is connected, on a thread, and note with the peer that it is met."""
        one = time.monotonic() + _FIRST, peer, envelope, blob
        with self._lock:
            if self._to_meet is not None:
                self._to_meet.append(one)
                return
            self._to_meet = deque([one])
            try:
                threads.start(threading.Thread(target=self._work, name="nixl-meet", daemon=True))
            except BaseException as error:
                self._to_meet = None
                # Without a thread the transfer's own agent tells it.
                if not isinstance(error, BackendError):
                    raise

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._to_meet:
                    self._to_meet = None
                    return
                begin, peer, envelope, blob = self._to_meet.popleft()
            time.sleep(max(0.0, begin - time.monotonic()))
            try:
                self._introduce(peer, envelope, blob)
            except AgentClosedError:
                pass
            except Exception as error:
                # The transfer's own agent tells it.
                logger.debug("peer %s is not met by the messenger: %r", peer.name, error)

    def _introduce(self, peer: Peer, envelope: Envelope, blob: bytes) -> None:
        if peer.broken:
            return
        require_files(24, f"connecting peer {peer.name!r}")
        met = self.meet(envelope, blob, peer.alias)
        self.keep(peer.name, met)
        peer.reliable = met.reliable  # before: it is read with the next
        peer.told_as = met.alias
        # Who lets go of a peer notes that first, and forgets it here then.
        if peer.broken and self._met.get(peer.name) is met:
            self.forget(peer.name)

    def meet(self, peer: Envelope, blob: bytes, alias: bytes) -> Acquaintance:
        """Connect to a peer, unless that stands. To be followed by `keep` or `drop`.

        By one thread at a time for each name, but for what `meet_soon` does.

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

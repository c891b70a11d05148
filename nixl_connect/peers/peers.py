"""The remote agents that one agent knows: what is loaded of each, and what is in flight to it.

NIXL accumulates the regions of a peer and forgets none. Loading a region that it knows under
another key fails, and makes the peer unreachable for the life of the agent; a stale region that
meets a fresh one may be used in its place. Memory that is freed and registered again, and
allocators that hand out an address twice, make both a normal event. So this module keeps a ledger
of what has been loaded and compares before NIXL sees anything:

- nothing new: no call;
- new regions that meet no region of another key, and whose keys look like those that NIXL has
  accepted: load;
- a conflict: another connection, beside the first;
- other connection info (a restarted peer), a broken connection, or a ledger at its limit: another
  connection in its place. What is in flight ends over the old one, which is taken down later. Other
  peers notice nothing.

To NIXL each connection is another agent, with an alias for a name: so two may exist at a time, and
a name that NIXL or UCX has spoilt is not needed again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from nixl_connect._native.agent import Agent, LongCall
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.envelope import Envelope, Section, alias_of, renamed, write
from nixl_connect.backend.agents import is_here
from nixl_connect.backend.files import require_files
from nixl_connect.errors import MetadataError, PeerLostError, TransferTimeoutError
from nixl_connect.peers.identity import identity_of
from nixl_connect.peers.ledger import Verdict
from nixl_connect.peers.messenger import UNUSED, Messenger
from nixl_connect.peers.peer import Peer
from nixl_connect.permit import Permit, interruption

logger: logging.Logger = logging.getLogger(__name__)

# A peer with which nothing was exchanged for so long (seconds) is disconnected when another one
# connects.
_IDLE = 600.0
# A peer that was heard of within this time (seconds) is taken to be there.
_QUIET = 1.0
# Connecting a peer takes milliseconds; loading a few more regions, whose metadata has no more bytes
# than this, takes less than one.
_QUICK_BYTES = 16 * 1024
# Most connections beside the one to a peer, whose regions conflict with each other.
_MOST_BESIDE = 4
# UCX may use one connection in both directions. So where peers may have come to this agent, what
# was taken down is closed only when nothing has gone over it for so long (seconds): the peer looks
# whether a quiet connection stands before it uses it.
_PERHAPS_USED = 60.0
# How long (seconds) to wait for a look at the network.
_GLANCE = 0.005
# How long (seconds) a thread waits for a peer at a stretch.
_SLICE = 0.1


class _Claim:
    """What a thread has taken to load metadata.

    Attributes
    ----------
    taken : Peer or None
        The peer that there is; busy. None where there is nothing to load.
    peer : Peer
        Where to load it: the same, or one that is to take its place if that succeeds.
    missing : list of Section
        What to load.
    beside : bool
        Whether both are to stay.
    loaded : bool
        Whether it has succeeded.
    quiet : bool
        Whether nothing was exchanged with the peer for a while.
    whole : bool
        Whether it is for all that the metadata describes.
    """

    __slots__ = ("beside", "loaded", "missing", "peer", "quiet", "taken", "whole")

    peer: Peer

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.taken: Peer | None = None
        self.missing: list[Section] = []
        self.beside = False
        self.loaded = False
        self.quiet = False


class Peers:
    """The peers of one agent. Safe to call from any thread.

    Parameters
    ----------
    agent : Agent
        The local agent.
    messenger : Messenger or None
        Meets those peers, too.
    is_near : callable
        Says whether an agent, by its identity, has its doorbell on this host.
    limit : int
        Most regions to keep of one peer.
    own : dict of str to bytes
        The local agent's connection info.
    refresh : callable, optional
        Has UCX learn which connections have broken, within so many seconds.
    """

    def __init__(
        self,
        agent: Agent,
        messenger: Messenger | None,
        is_near: Callable[[bytes], bool],
        *,
        limit: int,
        own: dict[str, bytes],
        refresh: Callable[[float], None] | None = None,
    ) -> None:
        self._agent = agent
        self._messenger = messenger
        self._is_near = is_near
        self._refresh = refresh
        self._own = own
        self._name = agent.name.decode()
        self._limit = limit
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.by_name: dict[str, Peer] = {}
        """Of each agent's connections the one that is used. Changed with the lock held."""
        self._given_up: list[Peer] = []
        """Those in whose place there is another, and which are still connected."""
        self._aliases = itertools.count(1)
        self.reloads: int = 0
        """How often another connection to a peer was made in the place of one."""
        self.evictions: int = 0
        """How many peers were disconnected because they were lost or idle."""

    def __len__(self) -> int:
        """Return how many are connected, as far as is known: not those that are lost."""
        with self._lock:
            return sum(bool(peer.connections) and not peer.broken for peer in self.by_name.values())

    @property
    def connections(self) -> int:
        """How many connections have not been taken down: not all of them may stand."""
        return len(self.by_name) + len(self._given_up)

    def known(self) -> list[Peer]:
        """Return these connections."""
        with self._lock:
            return [*self.by_name.values(), *self._given_up]

    def look(self) -> None:
        """Note who of this host has gone, among those with which nothing goes on.

        UCX tells of a peer that is lost when something is sent to it, and that would hold up a
        transfer. On this host it has a doorbell as long as it lives.
        """
        latest = time.monotonic() - _QUIET
        for peer in self.known():
            quiet = not (peer.broken or peer.busy or peer.in_flight) and peer.last_used < latest
            if quiet and peer.near and not self._is_near(peer.identity):
                self.mark_broken(peer)

    def is_busy(self, name: str) -> bool:
        """Whether a thread loads metadata of a peer just now."""
        peer = self.by_name.get(name)
        return peer is not None and peer.busy

    def identity_of(self, envelope: Envelope) -> bytes:
        """Return which agent metadata is of: as noted with the peer, if that is connected."""
        peer = self.by_name.get(envelope.agent)
        if peer is not None and peer.connections == envelope.connections:
            return peer.identity
        return identity_of(envelope.agent, envelope.connections)

    def admit(
        self,
        envelope: Envelope,
        blob: bytes,
        timeout: float,
        permit: Permit,
        hold: Any = None,
        *,
        whole: bool = True,
    ) -> Peer:
        """Make sure that what `envelope` describes is loaded, and count a transfer to the peer.

        Parameters
        ----------
        envelope, blob
            The metadata, parsed and not.
        timeout : float
            Most seconds to wait for another thread that loads metadata of the peer.
        permit : Permit
            Whether to wait or load at all, and for how long.
        hold : object, optional
            In whose `peer` to note what it has to leave.
        whole : bool
            Whether `envelope` describes all that the metadata does.

        Returns
        -------
        Peer
            To `leave` when the transfer is over.
        """
        if envelope.agent == self._name:
            if any(self._own.get(name) != info for name, info in envelope.connections.items()):
                raise MetadataError(
                    f"another agent has the name of this one, {self._name!r}; names must be unique"
                )
            # An agent may transfer within itself; NIXL knows its own regions.
            itself = Peer(self._agent.called, self.identity_of(envelope), envelope.agent)
            itself.itself = True
            itself.join(hold)
            return itself
        end = min(time.monotonic() + timeout, permit.end)
        while True:
            claim = _Claim(whole=whole)
            try:
                self._claim(claim, envelope, blob, end, permit=permit, hold=hold)
                peer = claim.peer
                if claim.taken is None:
                    if not claim.quiet or self.stands(peer):
                        return peer
                    self.mark_broken(peer)
                    peer.leave(hold)
                    continue
                head = renamed(blob[: envelope.sections_at], peer.alias)
                if peer.connections:
                    claim.loaded = self._load_more(peer, write(head, claim.missing))
                else:
                    self._load(peer, envelope, blob, write(head, claim.missing))
                    claim.loaded = True
            finally:
                # Whatever a signal handler raises, a peer that was made busy does not stay so.
                try:
                    self._settle(claim, envelope, blob, hold)
                finally:
                    if claim.taken is not None:
                        claim.taken.busy = False
            if claim.loaded:
                logger.debug("%s: peer %s: loaded", self._name, peer.name)
                return peer

    def _claim(
        self,
        claim: _Claim,
        envelope: Envelope,
        blob: bytes,
        end: float,
        *,
        permit: Permit,
        hold: Any,
    ) -> None:
        """Look up a peer that knows all of the metadata, and count the transfer, or take one."""
        if len(blob) > _QUICK_BYTES:
            permit.need_patience()  # to compare it, too
        with self._lock:
            old = self._settled(envelope.agent, end, permit)
            verdict = Verdict.CONFLICT
            if old is not None:
                old, verdict, claim.missing = self._best(old, envelope)
            if old is not None and verdict is Verdict.KNOWN:
                claim.peer = old
                claim.quiet = old.is_quiet
                if claim.whole:
                    old.note_loaded(blob)
                old.join(hold)
                return
            if old is not None and verdict is Verdict.NEW:
                if old.ledger.regions == 0:
                    permit.need_patience()
                claim.peer = old
                claim.taken, old.busy = old, True
                return
            permit.need_patience()
            alias = alias_of(envelope.agent, next(self._aliases))
            new = Peer(alias, self.identity_of(envelope), envelope.agent)
            new.here = is_here(envelope.connections)
            _, claim.missing = new.compare(envelope, self._limit)
            if old is None:
                old = self.by_name[envelope.agent] = new
            elif old.connections == envelope.connections:
                if old.near and not self._is_near(old.identity):
                    raise PeerLostError(f"peer {old.name!r} is gone", peer=old.name)
                new.ledger.trust(old.ledger)
                claim.beside = verdict is Verdict.CONFLICT and not old.broken
            claim.peer = new
            claim.taken, old.busy = old, True  # in this order: see `admit`

    def _best(self, peer: Peer, envelope: Envelope) -> tuple[Peer, Verdict, list[Section]]:
        """Return which connection to a peer suits metadata best, and puts it first. Lock held.

        There are several where its regions conflict with each other, or where two agents have one
        name.
        """
        verdict, missing = peer.compare(envelope, self._limit)
        if verdict in (Verdict.KNOWN, Verdict.NEW):
            return peer, verdict, missing
        for other in self._given_up:
            if (
                other.name == peer.name
                and other.connections == envelope.connections
                and not other.busy
            ):
                theirs, missing = other.compare(envelope, self._limit)
                if theirs in (Verdict.KNOWN, Verdict.NEW):
                    self._given_up.remove(other)
                    self._given_up.append(peer)
                    self.by_name[peer.name] = other
                    return other, theirs, missing
        return peer, verdict, []

    def _settle(self, claim: _Claim, envelope: Envelope, blob: bytes, hold: Any) -> None:
        """End what `_claim` began: give back what was taken, or put another in its place."""
        old = claim.taken
        if old is None:
            return
        new = claim.peer
        with self._lock:
            if claim.loaded and old is not new:
                if old.connections == envelope.connections and not claim.beside:
                    old.broken = True  # else there may be two agents of that name
                self._given_up.append(old)
                self.by_name[new.name] = new
                self.reloads += 1
            elif not claim.loaded and old is new:
                old.broken = True
                if not old.connections:
                    del self.by_name[old.name]
            # Else it is as it was.
            if claim.loaded:
                new.note(envelope, claim.missing)
                if claim.whole:
                    new.note_loaded(blob)
                new.join(hold)
                if claim.beside:
                    self._thin_out(new)
            old.busy, claim.taken = False, None
            self._changed.notify_all()
        if claim.loaded and old is not new:
            logger.debug("%s: peer %s has another connection", self._name, old.name)

    def _thin_out(self, peer: Peer) -> None:
        """Give up the connection that was used least of too many to one agent. Lock held."""
        beside = [
            other
            for other in self._given_up
            if other.name == peer.name
            and other.connections == peer.connections
            and not other.broken
        ]
        if len(beside) > _MOST_BESIDE:
            min(beside, key=lambda other: other.last_used).broken = True

    def _settled(self, name: str, end: float, permit: Permit) -> Peer | None:
        """Return a peer, or None, once no thread is loading it. Lock held."""
        while True:
            permit.check()
            peer = self.by_name.get(name)
            if peer is None or not peer.busy:
                return peer
            permit.need_patience()
            self._wait(end, peer)

    def mark_broken(self, peer: Peer) -> None:
        """Note that the connection to a peer broke, or that NIXL has dropped it by itself."""
        with self._lock:
            was_broken, peer.broken = peer.broken, True
        if not was_broken:
            logger.debug("%s: peer %s is lost", self._name, peer.name)

    @property
    def is_held_here(self) -> bool:
        """Whether this thread is in the middle of a change here."""
        return bool(self._changed._is_owned())  # type: ignore[attr-defined]

    def _evict_idle(self) -> None:
        """Disconnect peers that are lost or have been idle for long, with nothing in flight."""
        self._agent.hang_up(_PERHAPS_USED if self._agent.handed_out else UNUSED)
        if self._messenger is not None:
            self._messenger.hang_up()
        limit = time.monotonic() - _IDLE
        for peer in list(self._given_up):
            if not peer.broken and not self.reaches(peer):
                peer.broken = True
        with self._lock:
            # Claimed one by one: prepared transfers enter without the lock.
            idle = [
                peer
                for peer in (*self.by_name.values(), *self._given_up)
                if (peer.broken or peer.last_used < limit) and peer.claim()
            ]
        try:
            for peer in idle:
                self._disconnect(peer)
                if self._messenger is not None and self.by_name.get(peer.name) is peer:
                    self._messenger.forget(peer.name)
        finally:
            # After an exception some may still be connected: they are all unknown from here on, so
            # that their next metadata connects them anew.
            evicted = []
            with self._lock:
                for peer in idle:
                    peer.broken = True
                    peer.busy = False
                    if peer in self._given_up:
                        self._given_up.remove(peer)
                    elif self.by_name.get(peer.name) is peer:
                        del self.by_name[peer.name]
                        self.evictions += 1
                        evicted.append(peer.name)
                self._changed.notify_all()
            for name in evicted:
                logger.debug("%s: peer %s is let go", self._name, name)

    def _wait(self, end: float, peer: Peer) -> None:
        """Wait for a change. Lock held."""
        if peer.is_busy_here:
            raise interruption(f"connects peer {peer.name!r}")
        left = end - time.monotonic()
        if left <= 0:
            raise TransferTimeoutError(
                f"another thread did not finish in time to connect peer {peer.name!r}",
                peer=peer.name,
            )
        # In slices, so that a permit that was revoked or a connector that closed is noticed.
        self._changed.wait(min(left, _SLICE))

    def stands(self, peer: Peer) -> bool:
        """Whether a connection over which nothing has gone for a while stands."""
        if self._refresh is not None:
            self._refresh(_GLANCE)
        return self.reaches(peer)

    def reaches(self, peer: Peer) -> bool:
        """Whether the agent's connection to a peer stands, as far as UCX knows."""
        return self._agent.reaches(peer.alias)

    def wait_until_free(self, peer: Peer, timeout: float, permit: Permit) -> None:
        """Wait for a thread that is loading a peer."""
        end = min(time.monotonic() + timeout, permit.end)
        with self._lock:
            while peer.busy:
                permit.check()
                self._wait(end, peer)

    def _disconnect(self, peer: Peer) -> None:
        with contextlib.suppress(NativeError):  # NIXL may have dropped it already
            self._agent.invalidate_remote(peer.alias)

    def _load_more(self, peer: Peer, blob: bytes) -> bool:
        """Load more regions of a connected peer; False if the connection broke."""
        large = len(blob) > _QUICK_BYTES
        try:
            with LongCall(self._agent) if large else contextlib.nullcontext():
                return self._agent.load_more(peer.alias, blob)
        except NativeError as error:
            raise _refused(peer.name, error) from None

    def _load(self, peer: Peer, envelope: Envelope, blob: bytes, missing: bytes) -> None:
        """Connect a peer; `missing` is what to load of its metadata, under its alias."""
        require_files(24, f"connecting peer {peer.name!r}")
        # Before: if it ends meanwhile, that is seen.
        peer.near = self._is_near(peer.identity)
        met = None
        try:
            if self._messenger is not None:
                met = self._messenger.meet(envelope, blob, peer.alias)
            with LongCall(self._agent):
                self._evict_idle()
                name = self._agent.load_remote(missing)
            if name != peer.alias:
                raise MetadataError(f"NIXL read the peer's name as {name!r}, not {peer.alias!r}")
        except BaseException as error:
            # It may be connected all the same, and a region be at fault.
            self._disconnect(peer)
            if self._messenger is not None and met is not None:
                self._messenger.drop(peer.name, met)
            if isinstance(error, NativeError):
                raise _refused(peer.name, error) from None
            raise
        if self._messenger is not None and met is not None:
            self._messenger.keep(peer.name, met)
            peer.told_as, peer.reliable = met.alias, met.reliable


def _refused(name: str, error: NativeError) -> PeerLostError:
    """Return the error of a peer whose metadata NIXL did not load."""
    status = status_name(error.status)
    return PeerLostError(
        f"peer {name!r} cannot be connected, or NIXL refused its metadata (NIXL: {status})",
        status=status,
        peer=name,
    )

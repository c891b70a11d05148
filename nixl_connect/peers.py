"""The remote agents that one agent knows: what is loaded of each, and what is in flight to it.

NIXL accumulates the regions of a peer and forgets none. Loading a region that it knows under
another key fails, and makes the peer unreachable for the life of the agent; a stale region that
meets a fresh one may be used in its place. Memory that is freed and registered again, and
allocators that hand out an address twice, make both a normal event. So this module keeps a ledger
of what has been loaded and compares before NIXL sees anything:

- nothing new: no call;
- new regions that meet no region of another key: load;
- a conflict, other connection info (a restarted peer), a broken connection, or a ledger at its
  limit: hold new transfers to that peer, let those in flight end, disconnect, load, go on. Other
  peers notice nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from enum import Enum

from nixl_connect._native.agent import Agent
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.envelope import Envelope
from nixl_connect._native.packing import Regions
from nixl_connect._native.peer import PeerState
from nixl_connect._native.ranges import RangeMap, coverings
from nixl_connect.errors import MetadataError, PeerLostError, TransferTimeoutError
from nixl_connect.files import require_files
from nixl_connect.messenger import Messenger
from nixl_connect.permit import Permit
from nixl_connect.scout import Scout

logger = logging.getLogger(__name__)

# A peer with which nothing was exchanged for so long (seconds) is disconnected when another one
# connects.
_IDLE = 600.0
# Connecting a peer takes milliseconds; loading a few more regions, whose metadata has no more bytes
# than this, takes less than one.
_QUICK_BYTES = 16 * 1024
# How long (seconds) a thread waits for a peer at a stretch.
_SLICE = 0.1


class _Verdict(Enum):
    KNOWN = 0
    NEW = 1
    CONFLICT = 2


class Peer(PeerState):
    """One remote agent."""

    __slots__ = (
        "connections",
        "last_used",
        "ledgers",
        "name",
        "regions",
        "reliable",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections: dict[str, bytes] = {}
        self.ledgers: defaultdict[tuple[str, int], dict[int, RangeMap]] = defaultdict(dict)
        """What is loaded, with the keys: by backend and memory type, and device number."""
        self.regions = 0
        self.last_used = time.monotonic()
        self.reliable = math.inf
        """From when on the messenger may be relied on."""

    def compare(self, envelope: Envelope, limit: int) -> _Verdict:
        """Compare metadata with what is loaded."""
        if self.broken:
            return _Verdict.CONFLICT
        verdict = _Verdict.KNOWN
        for backend, info in envelope.connections.items():
            known_info = self.connections.get(backend)
            if known_info is None:
                verdict = _Verdict.NEW
            elif known_info != info:
                return _Verdict.CONFLICT
        fresh = 0
        for section in envelope.sections:
            ledgers = self.ledgers[section.backend, section.mem_type]
            for address, length, device, key in section.regions:
                ledger = ledgers.get(device)
                if ledger is not None:
                    end = address + length
                    if ledger.get(address, end) == key:
                        continue
                    if not ledger.admits(address, end, key):
                        return _Verdict.CONFLICT
                verdict = _Verdict.NEW
                fresh += 1
        return _Verdict.CONFLICT if self.regions and self.regions + fresh > limit else verdict

    def note(self, envelope: Envelope) -> None:
        """Note that metadata has been loaded."""
        self.connections.update(envelope.connections)
        for section in envelope.sections:
            ledgers = self.ledgers[section.backend, section.mem_type]
            for address, length, device, key in section.regions:
                ledger = ledgers.setdefault(device, RangeMap())
                if ledger.get(address, address + length) is None:
                    ledger.add(address, address + length, key)
                    self.regions += 1


class Peers:
    """The peers of one agent. Safe to call from any thread.

    Parameters
    ----------
    agent : Agent
        The local agent.
    messenger : Messenger or None
        Meets those peers, too.
    scout : Scout or None
        Goes first to peers that could not be connected before.
    limit : int
        Most regions to keep of one peer.
    pump : callable
        Waits up to so many seconds for operations to end, and collects them; raises once closed.
    own : dict of str to bytes
        The local agent's connection info.
    """

    def __init__(
        self,
        agent: Agent,
        messenger: Messenger | None,
        scout: Scout | None,
        *,
        limit: int,
        pump: Callable[[float], None],
        own: dict[str, bytes],
    ) -> None:
        self._agent = agent
        self._messenger = messenger
        self._scout = scout
        self._own = own
        self.calls = 0
        """Threads that connect a peer just now, or load much; others would wait for NIXL."""
        self._name = agent.name.decode()
        self._limit = limit
        self._pump = pump
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._peers: dict[str, Peer] = {}
        self.reloads = 0
        """How often a peer was disconnected to load what conflicted."""
        self.evictions = 0
        """How many peers were disconnected because they were lost or idle."""

    def __len__(self) -> int:
        return len(self._peers)

    def admit(self, envelope: Envelope, blob: bytes, timeout: float, permit: Permit) -> Peer:
        """Make sure that what `envelope` describes is loaded, and count a transfer to the peer.

        Parameters
        ----------
        envelope, blob
            The metadata, parsed and not.
        timeout : float
            Most seconds to wait for transfers in flight, where the metadata conflicts.
        permit : Permit
            Whether to wait or load at all, and for how long.

        Returns
        -------
        Peer
            Give it to `leave` when the transfer is over.
        """
        if envelope.agent == self._name:
            if any(self._own.get(name) != info for name, info in envelope.connections.items()):
                raise MetadataError(
                    f"another agent has the name of this one, {self._name!r}; names must be unique"
                )
            # An agent may transfer within itself; NIXL knows its own regions.
            itself = Peer(envelope.agent)
            itself.join()
            return itself
        end = min(time.monotonic() + timeout, permit.end)
        with self._lock:
            peer = self._settled(envelope.agent, end, permit)
            verdict = _Verdict.NEW if peer is None else peer.compare(envelope, self._limit)
            if peer is not None and verdict is _Verdict.KNOWN:
                peer.join()
                return peer
            if (
                peer is None
                or verdict is _Verdict.CONFLICT
                or peer.regions == 0
                or len(blob) > _QUICK_BYTES
            ):
                permit.need_patience()
            if peer is None:
                peer = self._peers[envelope.agent] = Peer(envelope.agent)
            peer.busy = True
        loaded = False
        try:
            if verdict is _Verdict.CONFLICT or not self._load_more(peer, blob):
                permit.need_patience()
                with self._long_call():
                    self._evict_idle()
                    if peer.connections:
                        self._disconnect(peer, end, permit)
                    self._load(peer, envelope, blob)
            logger.debug("%s: peer %s: loaded, %s", self._name, peer.name, verdict.name)
            loaded = True
        finally:
            with self._changed:
                peer.busy = False
                if loaded:
                    peer.note(envelope)
                    peer.join()
                elif not peer.connections:
                    del self._peers[peer.name]
                # Else it is as it was, or known to be broken.
                self._changed.notify_all()
        return peer

    @contextlib.contextmanager
    def _long_call(self) -> Iterator[None]:
        """Have others know that NIXL is busy for long."""
        with self._lock:
            self.calls += 1
        try:
            yield
        finally:
            with self._lock:
                self.calls -= 1

    def _settled(self, name: str, end: float, permit: Permit) -> Peer | None:
        """Return a peer, or None, once no thread is loading it. Lock held."""
        while True:
            permit.check()
            peer = self._peers.get(name)
            if peer is None or not peer.busy:
                return peer
            permit.need_patience()
            self._wait(end, peer)

    def covers(self, peer: Peer, regions: Regions, mem_type: int) -> bool:
        """Whether what is loaded of a peer holds all of `regions`."""
        with self._changed:
            return peer.name == self._name or any(
                coverings(ledgers, regions) is not None
                for (_, kind), ledgers in peer.ledgers.items()
                if kind == mem_type
            )

    def leave(self, peer: Peer) -> None:
        """Count a transfer out."""
        with self._lock:
            peer.leave()
            peer.last_used = time.monotonic()
            if self._waiting:
                self._changed.notify_all()

    def mark_broken(self, peer: Peer) -> None:
        """Note that the connection to a peer broke, or that NIXL has dropped it by itself."""
        logger.debug("%s: peer %s is lost", self._name, peer.name)
        with self._changed:
            peer.broken = True

    @property
    def is_held_here(self) -> bool:
        """Whether this thread is in the middle of a change here."""
        return bool(self._changed._is_owned())  # type: ignore[attr-defined]

    def _evict_idle(self) -> None:
        """Disconnect peers that are lost or have been idle for long, with nothing in flight."""
        limit = time.monotonic() - _IDLE
        with self._changed:
            # Claimed one by one: prepared transfers enter without the lock.
            idle = [
                peer
                for peer in self._peers.values()
                if (peer.broken or peer.last_used < limit) and peer.claim()
            ]
        try:
            for peer in idle:
                self._note_lost(peer)
                with contextlib.suppress(NativeError):  # NIXL may have dropped it already
                    self._agent.invalidate_remote(peer.name.encode())
                if self._messenger is not None:
                    self._messenger.forget(peer.name)
        finally:
            # After an exception some may still be connected: they are all unknown from here on, so
            # that their next metadata connects them anew.
            with self._changed:
                for peer in idle:
                    peer.busy = False
                    peer.broken = True
                    if peer.in_flight == 0 and peer.name in self._peers:
                        del self._peers[peer.name]
                        self.evictions += 1
                        logger.debug("%s: peer %s is let go", self._name, peer.name)
                self._changed.notify_all()

    def _wait(self, end: float, peer: Peer) -> None:
        """Wait for a change. Lock held."""
        left = end - time.monotonic()
        if left <= 0:
            raise TransferTimeoutError(
                f"peer {peer.name!r} has to be reconnected, and {peer.in_flight} transfers to it "
                "did not end in time",
                peer=peer.name,
            )
        # In slices, so that a permit that was revoked or a connector that closed is noticed.
        self._waiting += 1
        try:
            self._changed.wait(min(left, _SLICE))
        finally:
            self._waiting -= 1

    def reaches(self, peer: Peer) -> bool:
        """Whether the agent's connection to a peer stands, as far as UCX knows."""
        return self._agent.reaches(peer.name.encode())

    def wait_until_free(self, peer: Peer, timeout: float, permit: Permit) -> None:
        """Wait for a thread that is loading a peer."""
        end = min(time.monotonic() + timeout, permit.end)
        with self._changed:
            while peer.busy:
                permit.check()
                self._wait(end, peer)

    def _disconnect(self, peer: Peer, end: float, permit: Permit) -> None:
        while True:
            permit.check()
            with self._changed:
                if peer.in_flight == 0:
                    break
                if time.monotonic() > end:
                    self._wait(end, peer)
            self._pump(0.05)
        self._note_lost(peer)
        peer.broken = True  # until that is done, whatever comes between
        with contextlib.suppress(NativeError):  # NIXL may have dropped it already
            self._agent.invalidate_remote(peer.name.encode())
        logger.debug("%s: peer %s is to be connected anew", self._name, peer.name)
        with self._changed:
            self.reloads += 1
            peer.generation += 1
            peer.broken = False
            peer.connections.clear()
            peer.ledgers.clear()
            peer.regions = 0

    def _load_more(self, peer: Peer, blob: bytes) -> bool:
        """Load more regions of a connected peer; False if it is not, or the connection broke."""
        if not peer.connections:
            return False
        large = len(blob) > _QUICK_BYTES
        loaded = False
        try:
            with self._long_call() if large else contextlib.nullcontext():
                loaded = self._agent.load_more(peer.name.encode(), blob)
        except NativeError as error:
            raise _refused(peer.name, error) from None
        finally:
            if not loaded:
                peer.broken = True
        return loaded

    def _note_lost(self, peer: Peer) -> None:
        """Have a scout go first to a peer that broke."""
        if peer.broken and self._scout is not None:
            self._scout.note(peer.name, peer.connections)

    def _load(self, peer: Peer, envelope: Envelope, blob: bytes) -> None:
        require_files(24, f"connecting peer {peer.name!r}")
        try:
            if self._scout is not None:
                self._scout.look(envelope, blob)
            if self._messenger is not None and not peer.connections:
                peer.reliable = self._messenger.meet(envelope, blob)
            name = self._agent.load_remote(blob)
        except NativeError as error:
            if self._scout is not None:
                self._scout.note(envelope.agent, envelope.connections, error)
            raise _refused(envelope.agent, error) from None
        if self._scout is not None:
            self._scout.forget(envelope.agent)
        if name.decode("utf-8", "replace") != envelope.agent:
            raise MetadataError(f"NIXL read the peer's name as {name!r}, not {envelope.agent!r}")


def _refused(name: str, error: NativeError) -> PeerLostError:
    """Return the error of a peer whose metadata NIXL did not load."""
    status = status_name(error.status)
    return PeerLostError(
        f"peer {name!r} cannot be connected, or NIXL refused its metadata (NIXL: {status})",
        status=status,
        peer=name,
    )

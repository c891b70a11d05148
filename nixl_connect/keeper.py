"""Keeps what operations hold until no peer can touch it, and then lets go.

Whoever comes by collects: a wait that returns, a new operation, an event loop that was woken. What
nobody collects within a moment the reaper does, a Python thread that sleeps until there is work.
Finalizers leave all their work to it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from nixl_connect import threads
from nixl_connect._native.lock import Gate, persist
from nixl_connect._native.operation import Reason, Stage
from nixl_connect._native.reactor import Reactor
from nixl_connect.errors import TransferTimeoutError
from nixl_connect.lanes import Lane
from nixl_connect.peer import Peer
from nixl_connect.peers import Peers
from nixl_connect.permit import NotQuickError, Permit, interruption
from nixl_connect.registrations import Registration, Registrations

logger: logging.Logger = logging.getLogger(__name__)

# The reaper gives others this long (seconds) to collect what they are about to look at anyway.
_GRACE = 0.05
# So many operations are let go of in one go, which takes less than a millisecond.
_STRETCH = 128
# Where more than this are left to let go of, no operation begins before it has lent a hand.
_MUCH = 512
# How long (seconds) a beginning waits for its turn at a stretch.
_SLICE = 0.05
# More of them than this are not deregistered on whichever thread comes by.
_QUICK_REGISTRATIONS = 256
_LOST = frozenset({Reason.PEER_LOST, Reason.NOT_TOLD})
_FAILED = frozenset({Reason.PEER_LOST, Reason.TRANSFER})
# Seconds to wait for the reaper at the end, which may be in somebody's finalizer.
_LONGEST_JOIN = 10.0


class Hold:
    """What one operation holds: registrations, memory, and a place in its peer's count.

    And `parts`, for each lane that it uses: the lane, the peer there, and registrations there; and
    `owners`, the memory of registrations that ended with it, which goes when the hold goes.
    """

    __slots__ = ("memory", "nbytes", "owners", "parts", "peer", "registrations")

    def __init__(
        self, registrations: list[Registration], memory: list[Any], nbytes: int, peer: Peer | None
    ) -> None:
        self.registrations: list[Registration] = registrations
        self.memory: list[Any] = memory
        self.nbytes: int = nbytes
        self.peer: Peer | None = peer
        self.owners: list[Any] = []
        self.parts: list[tuple[Lane, Peer, list[Registration]]] = []


class Keeper:
    """The holds of one engine's operations.

    Parameters
    ----------
    reactor, registrations, peers
        Those of the engine.
    quarantine : float
        Seconds to keep memory whose end is not known when the engine closes.
    close : callable
        Closes the engine; called on the reaper's thread after `request_close`.
    """

    def __init__(
        self,
        reactor: Reactor,
        registrations: Registrations,
        peers: Peers,
        quarantine: float,
        close: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._registrations = registrations
        self._peers = peers
        self._seconds = quarantine
        self._close = close
        self._close_requested = False
        self._stopped = False
        # Held until then. Not an Event: an exception that another thread raises here might leave
        # its lock taken, and `stop` would wait for it.
        self._stopping = threading.Lock()
        self._stopping.acquire()
        self._deferred: deque[tuple[list[Registration], Any]] = deque()
        self._lock = threading.RLock()  # as all here, since a signal handler may use the connector
        self._collecting = Gate()
        self.ended: deque[tuple[int, int, int]] = deque()
        """What has ended, to be let go of: the operation's number, a Stage, a Reason."""
        self._quarantine: list[tuple[float, Hold]] = []
        self._lanes: list[Lane] = []
        self.holds: dict[int, Hold] = {}
        """By the operation's number."""
        # It holds whatever nobody else lets go of, and so ends only when all is done.
        self._reaper = threading.Thread(
            target=persist, args=(self._reap, _report), name="nixl-reaper", daemon=True
        )
        threads.start(self._reaper)

    @property
    def kept(self) -> list[Hold]:
        """All that is held now, quarantined memory included."""
        with self._lock:
            quarantined = [hold for _, hold in self._quarantine]
        return [*self.holds.copy().values(), *quarantined]

    def collect(self, *, patient: bool = False) -> None:
        """Let go of what ended operations held. Cheap when there is nothing.

        One thread at a time does it. Another leaves its finds to that one, or to the reaper; so
        does a finalizer that runs in the middle of a change to registrations or peers, and
        everybody where they would have to wait for NIXL.

        Parameters
        ----------
        patient : bool
            Wait, also for NIXL, until nothing is left: for threads that may.
        """
        while self._take_turn(math.inf if patient else 0.0):
            pass

    def keep_up(self, permit: Permit) -> None:
        """Let go of what has ended, if much has, before another operation begins.

        So no more operations end than can be let go of, however many threads begin them.

        Raises
        ------
        NotQuickError
            It takes patience, and there is none.
        TransferTimeoutError
            It is not done in time.
        """
        while len(self.ended) > _MUCH and not self.is_held_here:
            permit.need_patience()
            permit.check()
            if time.monotonic() > permit.end:
                raise TransferTimeoutError("could not begin in time: too much has to be let go of")
            self._take_turn(_SLICE)

    def add_lane(self, lane: Lane) -> None:
        """Have holds refer to a lane."""
        self._lanes.append(lane)

    @property
    def is_held_here(self) -> bool:
        """Whether this thread is in the middle of letting go, or of a change to what it needs."""
        return self._collecting.is_held_here or self._is_amid

    @property
    def _is_amid(self) -> bool:
        """Whether this thread is in the middle of a change to registrations or peers."""
        if self._registrations.is_held_here or self._peers.is_held_here:
            return True
        for lane in self._lanes:  # no generator: each beginning comes here
            if lane.registrations.is_held_here or lane.peers.is_held_here:
                return True
        return False

    def refuse_amid(self) -> None:
        """Refuse a signal handler, or a finalizer, what would see a change half done.

        It runs in the middle of a call of the same thread, which cannot go on before it returns: so
        there is nothing to wait for. The garbage collector may run a finalizer inside the steps of
        `ranges`, too.

        Raises
        ------
        StateError
            This thread is in the middle of a change to registrations or peers.
        """
        if self._is_amid:
            raise interruption("changes what is registered or connected")

    def _would_wait(self) -> bool:
        """Whether another thread is in a call to NIXL that may take long."""
        return (
            self._reactor.is_copying
            or self._registrations.is_busy
            or bool(self._peers.calls)
            or any(
                lane.native.is_busy or lane.registrations.is_busy or bool(lane.peers.calls)
                for lane in self._lanes
            )
        )

    def _take_turn(self, patience: float) -> bool:
        """Let go of some; return whether to come again. Who has patience also waits for NIXL."""
        self._reactor.collect(self.ended)
        if not (self.ended or self._deferred):
            return False
        memory: list[Any] = []  # dropped without the lock: it may have finalizers
        finished = False
        try:
            if not self.is_held_here and (patience or not self._would_wait()):
                with self._collecting.within(min(patience, threading.TIMEOUT_MAX)):
                    finished = self._let_go(memory, patient=patience > 0)
        except NotQuickError:
            pass  # another thread is at it
        finally:
            left = bool(self.ended or self._deferred)
            if left:
                self._reactor.poke()  # if nobody comes by, it is for the reaper
        return finished and left

    def _let_go(self, memory: list[Any], *, patient: bool) -> bool:
        """Let go, one by one: an exception, a signal handler's say, loses none. Lock held.

        Returns False where something is left that takes more patience than there is. `memory`
        takes what may be dropped.
        """
        for _ in range(_STRETCH):
            if not self.ended:
                break
            number, stage, reason = self.ended[0]
            hold = self.holds.get(number)
            if hold is not None and len(hold.registrations) > _QUICK_REGISTRATIONS and not patient:
                return False
            memory.append(hold)
            self.end(number, stage, reason)
            self.ended.popleft()
            # Last: what a filter raises comes when all is done.
            if hold is not None and logger.isEnabledFor(logging.DEBUG):
                names = Reason(reason).name, Stage(stage).name
                logger.debug("operation %d: ended, %s, memory %s", number, *names)
        while self._deferred:
            registration, owner = self._deferred[0]
            memory.append(owner)
            self._registrations.release(registration, memory)
            self._deferred.popleft()
        return patient or not self.ended

    def end(self, number: int, stage: int, reason: int) -> None:
        """Let go of what one operation held, as far as its stage allows. May be repeated."""
        hold = self.holds.get(number)
        if hold is None:
            return
        if stage == Stage.QUARANTINED:
            self._registrations.release(hold.registrations, hold.owners)
            return
        if reason in _LOST and hold.peer is not None:
            self._peers.mark_broken(hold.peer)
        if reason in _FAILED:
            self.break_lanes(hold)
        self.release(hold)
        if stage == Stage.UNKNOWN:
            with self._lock:
                self._quarantine.append((time.monotonic() + self._seconds, hold))
        del self.holds[number]

    def release(self, hold: Hold) -> None:
        """Give back a hold's registrations and its place in the peer's count."""
        self._registrations.release(hold.registrations, hold.owners)
        if hold.peer is not None:
            hold.peer.leave(hold)
        while hold.parts:
            lane, peer, registrations = hold.parts.pop()
            lane.registrations.release(registrations)
            peer.leave()

    def break_lanes(self, hold: Hold) -> None:
        """Have lanes connect the peer of a hold anew: NIXL may have dropped it there."""
        for lane, peer, _ in hold.parts:
            lane.peers.mark_broken(peer)

    def release_later(self, registration: list[Registration], memory: Any) -> None:
        """Release a registration, but not on this thread: for finalizers."""
        if self._stopped:
            return  # with the agent, everything was deregistered
        self._deferred.append((registration, memory))
        self._reactor.poke()

    def request_close(self) -> None:
        """Have the reaper close the engine: for finalizers."""
        self._close_requested = True
        self._reactor.poke()

    def stop(self) -> None:
        """Collect what is left once the reactor has stopped, and let the reaper end."""
        with self._collecting:
            pass  # another thread may have been in the middle of it
        self.collect(patient=True)
        if not self._stopped:
            self._stopped = True
            self._stopping.release()

    def join(self) -> None:
        """Wait for the reaper, unless memory in quarantine keeps it."""
        if threading.current_thread() is not self._reaper and not self._quarantine:
            self._reaper.join(_LONGEST_JOIN)

    def _reap(self) -> None:
        """Collect until the engine has stopped, and then keep quarantine. May be repeated."""
        alive = True
        while alive and not self._close_requested:
            self.collect(patient=True)  # what was left when this was interrupted, for a start
            alive = self._reactor.wait_garbage()
            if alive and not self._close_requested:
                self._wait_stopped(_GRACE)
        if self._close_requested:
            self._close()
        while not self._stopped:
            self._wait_stopped(_SLICE)
        self._reap_quarantine()

    def _wait_stopped(self, seconds: float) -> None:
        """Wait for `stop`, for the reaper."""
        if self._stopping.acquire(timeout=seconds):
            self._stopping.release()

    def _reap_quarantine(self) -> None:
        """Keep what is in quarantine, and let go."""
        while True:
            with self._lock:
                if not self._quarantine:
                    return
                end, hold = self._quarantine[0]
                left = end - time.monotonic()
                if left <= 0:
                    del self._quarantine[0]
            # Without the lock: what is dropped may have finalizers.
            del hold
            if left > 0:
                time.sleep(left)


def _report(error: BaseException) -> None:
    """Log what the reaper has met, such as an error of a program's logging filter."""
    # Not the error itself, whose frames a log record would keep alive.
    logger.error("letting go was interrupted, and is tried again: %s", repr(error))

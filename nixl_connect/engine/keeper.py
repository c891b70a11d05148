"""Has what operations held let go of, on a thread of its own where nobody else does.

See `nixl_connect._native.collector`, which does it.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable

from nixl_connect._native.collector import Collector
from nixl_connect._native.hold import Hold
from nixl_connect._native.lock import persist
from nixl_connect._native.operation import Reason, Stage
from nixl_connect._native.reactor import Reactor
from nixl_connect._native.registry import Registry
from nixl_connect.backend import threads
from nixl_connect.peers.lanes import Lane
from nixl_connect.peers.peers import Peers
from nixl_connect.permit import interruption

logger: logging.Logger = logging.getLogger(__name__)

# The reaper gives others this long (seconds) to collect what they are about to look at anyway.
_GRACE = 0.05
# How long (seconds) the reaper waits at a stretch.
_SLICE = 0.05
# How long (seconds) to wait at the end for a thread that lets go, looking so often.
_LONGEST_TURN, _PAUSE = 1.0, 0.002
# Seconds to wait for the reaper at the end, which may be in somebody's finalizer.
_LONGEST_JOIN = 10.0


class Keeper:
    """Sees to it that the holds of one engine's operations end.

    Parameters
    ----------
    reactor, registry, peers
        Those of the engine.
    quarantine : float
        Seconds to keep memory whose end is not known when the engine closes.
    look : callable
        Called on the reaper's thread whenever something has ended that nobody collected.
    close : callable
        Closes the engine; called on the reaper's thread after `request_close`.
    """

    def __init__(
        self,
        reactor: Reactor,
        registry: Registry,
        peers: Peers,
        quarantine: float,
        *,
        look: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        self._peers = [peers]
        self._look = look
        self._close = close
        self._close_requested = False
        self._stopped = False
        # Held until then. Not an Event: an exception that another thread raises here might leave
        # its lock taken, and `stop` would wait for it.
        self._stopping = threading.Lock()
        self._stopping.acquire()
        self._quarantine: list[tuple[float, Hold]] = []
        self.collector: Collector = Collector(
            reactor,
            registry,
            self._quarantine,
            quarantine,
            functools.partial(logger.isEnabledFor, logging.DEBUG),
            _report_end,
        )
        reactor.attach(registry)
        self._reactor = reactor
        self.collect: Callable[..., None] = self.collector.collect
        # It holds whatever nobody else lets go of, and so ends only when all is done.
        self._reaper = threading.Thread(
            target=persist, args=(self._reap, _report), name="nixl-reaper", daemon=True
        )
        threads.start(self._reaper)

    @property
    def kept(self) -> tuple[int, int]:
        """How many operations hold memory now, that in quarantine included, and how many bytes."""
        counters = self._reactor.counters
        quarantined = [hold.nbytes for _, hold in self._quarantine.copy()]
        return counters["held"] + len(quarantined), counters["held_bytes"] + sum(quarantined)

    def add_lane(self, lane: Lane) -> None:
        """Have holds refer to a lane."""
        self._peers.append(lane.peers)
        self._reactor.attach(lane.registry)
        self.collector.add(lane.registry)

    @property
    def is_amid(self) -> bool:
        """Whether this thread is in the middle of a change to peers."""
        for peers in self._peers:  # noqa: SIM110, no generator: each beginning comes here
            if peers.is_held_here:
                return True
        return False

    def refuse_amid(self) -> None:
        """Refuse a signal handler, or a finalizer, what would see a change half done.

        It runs in the middle of a call of the same thread, which cannot go on before it returns: so
        there is nothing to wait for.

        Raises
        ------
        StateError
            This thread is in the middle of a change to peers.
        """
        if self.is_amid:
            raise interruption("connects a peer")

    def request_close(self) -> None:
        """Have the reaper close the engine: for finalizers."""
        self._close_requested = True
        self.collector.poke()

    def stop(self) -> None:
        """Collect what is left once the reactor has stopped, and let the reaper end."""
        self.collect(patient=True)
        # Another thread may be in the middle of it, or this one, in a finalizer.
        end = time.monotonic() + _LONGEST_TURN
        while self.collector.is_under_way and time.monotonic() < end:
            time.sleep(_PAUSE)
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
            self._look()
            alive = self.collector.wait()
            if alive and not self._close_requested:
                self._wait_stopped(_GRACE)
        if self._close_requested:
            self._close()
        while not self._stopped:
            self._wait_stopped(_SLICE)
        self.collect(patient=True)  # what another thread has found meanwhile
        self._look()
        self._reap_quarantine()

    def _wait_stopped(self, seconds: float) -> None:
        """Wait for `stop`, for the reaper."""
        if self._stopping.acquire(timeout=seconds):
            self._stopping.release()

    def _reap_quarantine(self) -> None:
        """Keep what is in quarantine, and let go."""
        while self._quarantine:
            end, hold = self._quarantine[0]
            left = end - time.monotonic()
            if left <= 0:
                del self._quarantine[0]
            del hold  # what is dropped may have finalizers
            if left > 0:
                time.sleep(left)


def _report_end(number: int, reason: int, stage: int) -> None:
    """Log what was let go of."""
    names = Reason(reason).name, Stage(stage).name
    logger.debug("operation %d: ended, %s, memory %s", number, *names)


def _report(error: BaseException) -> None:
    """Log what the reaper has met, such as an error of a program's logging filter."""
    # Not the error itself, whose frames a log record would keep alive.
    logger.error("letting go was interrupted, and is tried again: %s", repr(error))

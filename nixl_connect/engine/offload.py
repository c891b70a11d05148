"""Runs what may take long on other threads, for event loops that go on meanwhile."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from nixl_connect._native.lock import persist
from nixl_connect.backend import threads
from nixl_connect.errors import BackendError, TransferTimeoutError
from nixl_connect.permit import HASTY, NotQuickError, Permit

Result = TypeVar("Result")
Job = Callable[[], None]


def start_thread(job: Job) -> None:
    """Run a job on a thread of its own, for which a program that ends does not wait.

    Raises
    ------
    BackendError
        No thread can be started.
    """
    threads.start(threading.Thread(target=job, name="nixl-begin", daemon=True))


def start_or_run(job: Job) -> None:
    """Run a job on a thread of its own; here where none can be started: for what has to be done."""
    try:
        start_thread(job)
    except BackendError:
        job()


async def on_thread(
    call: Callable[[], Result],
    *,
    start: Callable[[Job], None] = start_thread,
    timeout: float = math.inf,
) -> Result:
    """Run a call on a thread, and return its result.

    Parameters
    ----------
    call : callable
        What to run.
    start : callable
        Has a thread run something; by default, one of its own.
    timeout : float
        Seconds after which to give up on it. The call goes on, and its result is dropped.

    Raises
    ------
    TransferTimeoutError
        The timeout passed.
    """
    import asyncio  # late: see `loops`

    loop = asyncio.get_running_loop()
    # Taken out at the end: an error has these frames in its traceback, and so a frame that has the
    # future that has the error would keep the caller's buffers.
    waiting: list[asyncio.Future[Result]] = [loop.create_future()]

    def run() -> None:
        try:
            result, error = call(), None
        except BaseException as raised:
            result, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(finish, result, error)
        del result, error

    def finish(result: Any, error: BaseException | None) -> None:
        if not waiting or waiting[0].done():
            return
        if error is None:
            waiting[0].set_result(result)
        else:
            waiting[0].set_exception(error)

    def give_up() -> None:
        finish(None, TransferTimeoutError(f"not done within {timeout} s"))

    start(run)
    timer = None if math.isinf(timeout) else loop.call_later(timeout, give_up)
    try:
        return await waiting[0]
    finally:
        if timer is not None:
            timer.cancel()
        waiting.clear()


def _nothing() -> None:
    """Stand for the job that runs."""


def _lose(error: BaseException) -> None:
    """Have nobody know what another thread raised here: it concerns no beginning."""


class Beginnings:
    """Begins what may take long: of all that concerns one peer one at a time, on one thread.

    Not on one thread for all: what waits for a hung peer must not keep others from their work. And
    not on one thread each: a burst of ten thousand to a peer that is just being connected would be
    ten thousand threads, which wait for it and for each other.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queues: dict[str, deque[Job]] = {}

    async def begin(
        self, call: Callable[[Permit], Result], peer: str = "", timeout: float = math.inf
    ) -> Result:
        """Begin something: here if that is quick, else on the thread for its peer.

        If the task is cancelled meanwhile, what has not been started never is.

        Parameters
        ----------
        call : callable
            Begins it, as far as its permit allows.
        peer : str
            The peer's name, if one is concerned.
        timeout : float
            Most seconds to wait for its beginning.
        """
        with contextlib.suppress(NotQuickError):
            return call(HASTY)
        permit = Permit(timeout)
        try:
            return await on_thread(
                lambda: call(permit), start=lambda job: self._queue(peer, job), timeout=timeout
            )
        except BaseException:
            permit.revoke()
            raise

    def _queue(self, peer: str, job: Job) -> None:
        """Have the peer's thread run a job after those that it has."""
        with self._lock:
            queue = self._queues.get(peer)
            if queue is not None:
                queue.append(job)
                return
            queue = self._queues[peer] = deque([job])
            try:
                start_thread(lambda: persist(lambda: self._work(peer, queue), _lose))
            except BaseException:
                self._queues.pop(peer, None)
                raise

    def _work(self, peer: str, queue: deque[Job]) -> None:
        """Run jobs until there are none. While one runs, the queue is not empty: it has a thread.

        May be repeated.
        """
        while True:
            with self._lock:
                if queue and queue[0] is _nothing:
                    queue.popleft()
                if not queue:
                    if self._queues.get(peer) is queue:
                        del self._queues[peer]
                    return
                job, queue[0] = queue[0], _nothing  # it is not run again, whatever comes
            # What it cannot say to whoever waits for it, for want of memory, is lost; not those
            # behind it.
            with contextlib.suppress(BaseException):
                job()
            del job

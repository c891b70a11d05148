"""Somebody who waits for a block of a pool: a thread, or a task of an event loop."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

# Seconds after which whoever was woken and has not looked loses its turn: its loop stands still, or
# a signal handler's exception has come in between. After as many everybody looks again by itself.
AGAIN = 1.0


class Waiter:
    """A place in the line for blocks of one size.

    Woken by finalizers, which run on any thread at any point: `wake` takes no lock, may be called
    as often as anybody likes, and leaves the line as it is.

    Parameters
    ----------
    size : int
        Bytes of the block.
    """

    def __init__(self, size: int) -> None:
        self.size: int = size
        self.has_looked: bool = False
        """Whether it has looked, and found nothing."""
        self.is_gone: bool = False
        """Whether it waits no more."""
        self.woken_at: float | None = None
        """When it was woken, unless it has looked since; by the monotonic clock."""

    @property
    def is_awaited(self) -> bool:
        """Whether it has been woken, and is about to look."""
        woken_at = self.woken_at
        return woken_at is not None and time.monotonic() < woken_at + AGAIN

    @property
    def is_passed_over(self) -> bool:
        """Whether those behind it need not wait for it."""
        return self.is_gone or (self.woken_at is not None and not self.is_awaited)

    def wake(self) -> bool:
        """Have it look; return False if nobody is there."""
        if self.is_gone:
            return False
        if self.woken_at is None:
            self.woken_at = time.monotonic()
        return self._wake()

    def _wake(self) -> bool:
        raise NotImplementedError


class ThreadWaiter(Waiter):
    """A thread that waits."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def _wake(self) -> bool:
        with contextlib.suppress(RuntimeError):  # it is awake
            self._asleep.release()
        return True

    def wait(self, timeout: float) -> None:
        """Sleep until woken, for so many seconds at most."""
        self._asleep.acquire(timeout=timeout)


class TaskWaiter(Waiter):
    """A task that waits."""

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(size)
        self._loop = loop
        self._woken: asyncio.Future[None] = loop.create_future()

    def _wake(self) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self.is_gone = True
        return not self.is_gone

    def _finish(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    async def wait(self, timeout: float) -> None:
        """Sleep until woken, for so many seconds at most."""
        import asyncio

        await asyncio.wait((self._woken,), timeout=timeout)
        if self._woken.done():
            self._woken = self._loop.create_future()

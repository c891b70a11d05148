"""Where the blocks of a pool come back to, and who waits for them.

Blocks come from finalizers, which run on any thread at any point, within the methods here too: so
each step is one call of a deque or a set, and nothing takes a lock. `queue.SimpleQueue` will not
do: its `get` may wait for ever once its timeout has passed (CPython 3.11).

An exception that a signal handler raises within a finalizer can lose a wake-up, and an event loop
that has been stopped does not take its own: whoever waits looks again by itself now and then.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Block = TypeVar("Block")


class Waiter:
    """Somebody who waits for a block.

    Parameters
    ----------
    size : int
        Of the block.
    wake : callable
        Called once at most, in a finalizer too: takes no lock. Returns False if nobody is there.
    """

    def __init__(self, size: int, wake: Callable[[], bool]) -> None:
        self.size = size
        self.wake = wake
        self.is_queued = False
        self.is_gone = False
        self.is_woken = False
        """Woken, and has not looked since."""
        self.has_waited = False

    @property
    def is_entitled(self) -> bool:
        """Whether it may take what others have been woken for. Whoever comes only now may not."""
        return self.has_waited or self.is_woken


class _Line:
    """Those who wait for blocks of one size, the first come first."""

    def __init__(self) -> None:
        self.queue: deque[Waiter] = deque()
        self.woken: set[Waiter] = set()
        self.seen = -1
        """What `Returns.changes` was when one of them last looked."""


class Returns(Generic[Block]):
    """Blocks that have come back, and those who wait.

    A block that comes back wakes the first who waits for its size or, if nobody does, one who waits
    for another: memory that is free in one size can make room. If the first of a size finds
    nothing, those behind it need not look, but those of other sizes.
    """

    def __init__(self) -> None:
        self.blocks: deque[Block] = deque()
        self.changes: int = 0
        """Grows with each change that may help somebody who waits."""
        self.closed: bool = False
        self._lines: dict[int, _Line] = {}

    def put(self, size: int, block: Block) -> None:
        """Take a block back."""
        if not self.closed:
            self.blocks.append(block)
            self.change(size)
        if self.closed:  # meanwhile
            self.blocks.clear()

    def change(self, size: int) -> None:
        """Wake somebody, since there is more to be had: of a size, if anybody waits for that."""
        self.changes += 1
        if not self.wake(size):
            self.pass_on()

    def join(self, waiter: Waiter, *, first: bool) -> None:
        """Have a waiter woken by what comes from now on. To be called before it looks.

        Parameters
        ----------
        waiter : Waiter
            Not waiting.
        first : bool
            Whether it goes before all others of its size: it was woken before, and found nothing.
        """
        line = self._lines.setdefault(waiter.size, _Line())
        waiter.is_queued = True
        if first:
            line.queue.appendleft(waiter)
        else:
            line.queue.append(waiter)

    def look(self, waiter: Waiter) -> None:
        """Note that a waiter is about to look."""
        self._lines[waiter.size].seen = self.changes

    def looked(self, waiter: Waiter) -> None:
        """Note that it has looked: nothing is kept for it any more."""
        waiter.is_woken = False
        self._lines[waiter.size].woken.discard(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Have a waiter woken no more. Another is, if this was and has not looked."""
        waiter.is_gone = True  # for whoever is about to wake it
        if waiter.is_queued:
            with contextlib.suppress(ValueError):  # it is being woken
                self._lines[waiter.size].queue.remove(waiter)
        if waiter.is_woken:
            self.looked(waiter)
            if not self.wake(waiter.size):
                self.pass_on()

    def count_woken(self, size: int) -> int:
        """Return how many have been woken for blocks of a size, and have not looked."""
        line = self._lines.get(size)
        return 0 if line is None else len(line.woken)

    def count_waiting(self, size: int) -> int:
        """Return how many wait for blocks of a size."""
        line = self._lines.get(size)
        return 0 if line is None else len(line.queue)

    def wake(self, size: int) -> bool:
        """Wake the first who waits for blocks of a size; return whether there was one."""
        line = self._lines.get(size)
        while line is not None and line.queue:
            try:
                waiter = line.queue.popleft()
            except IndexError:  # a finalizer came in between
                return False
            waiter.is_queued = False
            waiter.is_woken = True
            line.woken.add(waiter)
            if not waiter.is_gone and waiter.wake():
                return True
            self.looked(waiter)
        return False

    def pass_on(self) -> None:
        """Wake the first of a size of which nobody has looked since the last change, if any."""
        for size, line in list(self._lines.items()):
            if line.seen != self.changes and self.wake(size):
                return

    def close(self) -> None:
        """Take nothing back any more, and wake all who wait, to see that."""
        self.closed = True
        self.blocks.clear()
        for size in list(self._lines):
            while self.wake(size):
                pass

"""Where the blocks of a pool come back to, and who waits for them.

Blocks come from finalizers, which run on any thread at any point, within the methods here too: so
each step is one call of a deque, and nothing takes a lock. `queue.SimpleQueue` will not do: its
`get` may wait for ever once its timeout has passed (CPython 3.11).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Block = TypeVar("Block")


class Waiter:
    """Somebody who waits for a block."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        """Called once at most, in a finalizer too: takes no lock."""
        self.seen = -1
        """What `Returns.changes` was when it last looked."""


class Returns(Generic[Block]):
    """Blocks that have come back, and those who wait.

    Whatever comes back wakes one waiter, the one that has waited longest. For whom it will not do
    wakes the next.
    """

    __slots__ = ("_waiting", "blocks", "changes", "closed")

    def __init__(self) -> None:
        self.blocks: deque[Block] = deque()
        self.changes: int = 0
        """Grows after each change that may help somebody who waits."""
        self.closed: bool = False
        self._waiting: deque[Waiter] = deque()

    def put(self, block: Block) -> None:
        """Take a block back."""
        if not self.closed:
            self.blocks.append(block)
            self.change()
        if self.closed:  # meanwhile
            self.blocks.clear()

    def change(self) -> None:
        """Wake one waiter, since there is more to be had."""
        self.changes += 1
        self._wake_one()

    def join(self, waiter: Waiter) -> None:
        """Have a waiter woken by what comes from now on. To be called before it looks."""
        waiter.seen = self.changes
        self._waiting.append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Have a waiter woken no more."""
        with contextlib.suppress(ValueError):  # it has been woken
            self._waiting.remove(waiter)

    def pass_on(self) -> None:
        """Wake the next waiter, unless it has looked since the last change."""
        with contextlib.suppress(IndexError):
            if self._waiting[0].seen != self.changes:
                self._wake_one()

    def close(self) -> None:
        """Take nothing back any more, and wake all who wait, to see that."""
        self.closed = True
        self.blocks.clear()
        while self._waiting:
            self._wake_one()

    def _wake_one(self) -> None:
        with contextlib.suppress(IndexError):
            self._waiting.popleft().wake()

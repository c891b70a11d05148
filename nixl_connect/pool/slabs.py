"""What of a pool's slabs is free, and who waits for it.

A block that comes back does so from a finalizer, which runs on any thread at any point, within the
methods here too. So that takes no lock: it is one `append` to a list of what is free in a slab, and
everything else is worked out from these lists.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque

from nixl_connect._native.block import Block
from nixl_connect.errors import ClosedError
from nixl_connect.memory.registrar import AbstractConnector
from nixl_connect.permit import NotQuickError
from nixl_connect.pool.lease import Lease
from nixl_connect.pool.slab import Slab
from nixl_connect.pool.waiter import Waiter

# In the place of who adds memory, and how much.
_NOBODY: tuple[Waiter | None, int] = (None, 0)
_all: weakref.WeakSet[Slabs] = weakref.WeakSet()


class Slabs:
    """The slabs of a pool. From every thread, and event loops.

    Whoever waits for a block is in the line for its size. The first of a line takes what comes
    back, and adds memory if there is room; whoever asks later comes after those who are in line.

    Parameters
    ----------
    connector : Connector
        With which to register.
    most : int
        Most bytes to have.
    slab_bytes : int
        How many to add at a time, at least.
    pin : bool
        Whether CUDA should know them as pinned.
    """

    def __init__(
        self, connector: AbstractConnector, most: int, slab_bytes: int, *, pin: bool
    ) -> None:
        self._connector = connector
        self._slab_bytes = slab_bytes
        self._pin = pin
        self.most = most
        self._lock = threading.RLock()  # a finalizer or a signal handler may come in between
        self._closed = False
        # By the bytes of a block.
        self._slabs: dict[int, list[Slab]] = {}
        self._lines: dict[int, deque[Waiter]] = {}
        self._growing: dict[int, tuple[Waiter, int]] = {}  # who adds how many bytes
        self._waits = 0
        self._inherited = False
        _all.add(self)

    def _after_fork(self) -> None:
        """Be harmless in the child of a fork; of use, if the connector was not open before."""
        # A thread that is not in the child may have held it, and been in line or adding memory.
        self._lock = threading.RLock()
        self._lines = {size: deque() for size in self._lines}
        self._growing = {}
        self._inherited = self._connector._connection is not None

    def refuse_after_fork(self) -> None:
        """Raise ClosedError in a child of the process that the memory belongs to."""
        if self._inherited:
            raise ClosedError(
                "the pool's connector was opened before this process was forked; make pools in "
                "children only, or start processes with multiprocessing's 'spawn' or 'forkserver'"
            )

    def at_once(self, block: int, nbytes: int) -> Lease | None:
        """Return a lease where one is free and nobody is in any line; else None: get in line."""
        self.refuse_after_fork()
        with self._lock:
            if not self._closed and not self._growing and not any(self._lines.values()):
                for slab in self._slabs.get(block, ()):
                    if slab.free:
                        return self._leased(slab, slab.free.pop(), nbytes)
        return None

    def join(self, waiter: Waiter) -> None:
        """Put somebody at the end of its line. To be called before it looks."""
        self.refuse_after_fork()
        with self._lock:
            self._slabs.setdefault(waiter.size, [])
            self._lines.setdefault(waiter.size, deque()).append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Take somebody out of its line. The next may have what it leaves, or was woken for."""
        waiter.is_gone = True
        with self._lock, contextlib.suppress(KeyError, ValueError):  # it may not have got there
            self._lines[waiter.size].remove(waiter)
        self._wake_those_who_can_go_on()

    def note_wait(self) -> None:
        """Count somebody who waits."""
        with self._lock:
            self._waits += 1

    def take(self, waiter: Waiter, nbytes: int, *, grow: bool) -> Lease | None:
        """Return a lease; None where it is not its turn, nothing is free, and no more may be added.

        Parameters
        ----------
        waiter : Waiter
            For whom, in line.
        nbytes : int
            How many bytes of the block to lend.
        grow : bool
            Whether memory may be added, which may take long.

        Raises
        ------
        NotQuickError
            Memory may be added, and `grow` is False.
        """
        block = waiter.size
        while not waiter.is_gone:
            self.refuse_after_fork()  # in the middle of it, too
            try:
                with self._lock:
                    if self._closed:
                        raise ClosedError("the pool is closed")
                    was_woken, waiter.woken_at = waiter.woken_at is not None, None
                    lease = self._lend(waiter, nbytes)
                    if lease is not None:
                        return lease
                    size = max(block, self._slab_bytes)
                    in_the_way = self._room(waiter, size)
                    if in_the_way is not None and not grow:
                        raise NotQuickError
                    if in_the_way is not None:
                        self._growing[block] = waiter, size
                        self._remove(in_the_way)
                if in_the_way is None:
                    waiter.has_looked = True
                    if was_woken:
                        self._wake_those_who_can_go_on(but=block)
                    return None
                in_the_way.clear()  # unpinned and unmapped without the lock
                added = Slab(self._connector, size, block, pin=self._pin)
                with self._lock:
                    if not self._closed:
                        self._slabs[block].append(added)
                del added
            finally:
                if self._growing.get(block, _NOBODY)[0] is waiter:
                    with self._lock:  # others add these up
                        del self._growing[block]
                    self._wake_first(block)
        return None

    def _lend(self, waiter: Waiter, nbytes: int) -> Lease | None:
        """Return a lease if it is a waiter's turn and something is free. Lock held."""
        if not self._is_first(waiter):
            return None
        # Whoever comes only now leaves a whole slab to another line that was woken for its room, or
        # a loop that asks again and again would keep that from ever getting it.
        polite = not waiter.has_looked and self._is_awaited_elsewhere(waiter)
        for slab in self._slabs[waiter.size]:
            if slab.free and not (polite and slab.is_unused):
                offset = slab.free.pop()
                break
        else:
            return None
        return self._leased(slab, offset, nbytes)

    def _leased(self, slab: Slab, offset: int, nbytes: int) -> Lease:
        memory = Block(slab.memory, offset, nbytes)
        # When nobody refers to it any more: neither lease, nor descriptor, nor operation.
        weakref.finalize(memory, self._put, slab, offset).atexit = False
        return Lease(memory, nbytes, self.refuse_after_fork)

    def _put(self, slab: Slab, offset: int) -> None:
        """Take a block back. From a finalizer."""
        if self._inherited:
            return  # nobody waits but in the parent, whose event loops this could wake
        slab.free.append(offset)
        if not self._wake_first(slab.block):
            for size in list(self._lines):
                self._wake_first(size)

    def _is_first(self, waiter: Waiter) -> bool:
        """Whether it is a waiter's turn. Lock held."""
        for other in self._in_line(waiter.size):
            if other is waiter:
                return True
            if not self._is_passed_over(other):
                return False
        return False

    def _in_line(self, size: int) -> list[Waiter]:
        """Return those who wait for blocks of a size, as of now."""
        return list(self._lines.get(size, ()))

    def _is_passed_over(self, waiter: Waiter) -> bool:
        """Whether those behind a waiter need not wait for it."""
        return waiter.is_passed_over or self._growing.get(waiter.size, _NOBODY)[0] is waiter

    def _is_awaited_elsewhere(self, waiter: Waiter) -> bool:
        """Whether the first of another line was woken, and is about to look. Lock held."""
        return any(
            first.is_awaited
            for size in list(self._lines)
            if size != waiter.size
            for first in self._in_line(size)[:1]
        )

    def _room(self, waiter: Waiter, size: int) -> list[Slab] | None:
        """Return which unused slabs have to go for so many bytes more. Lock held.

        None if it is not a waiter's turn, or there is no room, or memory is being added already.
        """
        if waiter.size in self._growing or not self._is_first(waiter):
            return None
        if any(slab.free for slab in self._slabs[waiter.size]):
            return None  # which is another line's for the moment
        over = (
            self._registered
            + sum(held for _, held in list(self._growing.values()))
            + size
            - self.most
        )
        found: list[Slab] = []
        for block, slabs in list(self._slabs.items()):
            for slab in slabs if block != waiter.size else ():
                if over > 0 and slab.is_unused:
                    found.append(slab)
                    over -= slab.size
        return found if over <= 0 else None

    @property
    def _registered(self) -> int:
        return sum(slab.size for slabs in list(self._slabs.values()) for slab in slabs)

    def _wake_first(self, size: int) -> bool:
        """Wake the first in line for blocks of a size; return whether there is anybody.

        In a finalizer, too. Those who are passed over are woken as well: they may be there again.
        """
        for waiter in self._in_line(size):
            if waiter.wake() and not self._is_passed_over(waiter):
                return True
        return False

    def _wake_those_who_can_go_on(self, but: int = 0) -> None:
        """Wake the first of each line for which something is free or can be added."""
        for size in list(self._lines):
            if size != but and self._lines[size] and self._can_go_on(size):
                self._wake_first(size)

    def _can_go_on(self, size: int) -> bool:
        with self._lock:
            if any(slab.free for slab in self._slabs[size]):
                return True
            for waiter in self._in_line(size):
                if not self._is_passed_over(waiter):
                    return self._room(waiter, max(size, self._slab_bytes)) is not None
            return False

    def _remove(self, slabs: list[Slab]) -> None:
        """Take out slabs of which nothing is in use. Lock held."""
        for slab in slabs:
            self._slabs[slab.block].remove(slab)

    def trim(self) -> int:
        """Give back slabs of which nothing is in use; return how many bytes."""
        self.refuse_after_fork()
        with self._lock:
            dropped = [s for slabs in list(self._slabs.values()) for s in slabs if s.is_unused]
            self._remove(dropped)
        self._wake_those_who_can_go_on()
        return sum(slab.size for slab in dropped)

    def stats(self) -> dict[str, int]:
        """Return how much there is, and how much of it is in use."""
        self.refuse_after_fork()
        with self._lock:
            slabs = [slab for slabs in list(self._slabs.values()) for slab in slabs]
            used = [(slab.count - len(slab.free), slab.block) for slab in slabs]
            registered = sum(slab.size for slab in slabs)
            leased_bytes = sum(count * block for count, block in used)
            return {
                "bytes": registered,
                "slabs": len(slabs),
                "leases": sum(count for count, _ in used),
                "leased_bytes": leased_bytes,
                "free_bytes": registered - leased_bytes,
                "waits": self._waits,
            }

    def close(self) -> None:
        """Lend no more, and give back what is not in use; the rest as it comes back."""
        with self._lock:
            self._closed = True
            dropped = list(self._slabs.values())
            self._slabs = {size: [] for size in self._slabs}
            waiting = [waiter for size in list(self._lines) for waiter in self._in_line(size)]
        for waiter in waiting:
            waiter.wake()
        del dropped  # unpinned and unmapped without the lock

    def __repr__(self) -> str:
        if self._inherited:
            return "the parent process's"
        figures = self.stats()
        return f"{figures['bytes']} of {self.most} bytes, {figures['leased_bytes']} in use"


def _after_fork_in_child() -> None:
    for slabs in list(_all):
        slabs._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

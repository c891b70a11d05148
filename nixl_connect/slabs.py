"""The memory of a pool: slabs of blocks of one size, and what of them is free."""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref

from nixl_connect import cuda
from nixl_connect.connector import Connector
from nixl_connect.descriptor import Descriptor
from nixl_connect.errors import ClosedError
from nixl_connect.lease import Lease
from nixl_connect.permit import NotQuickError
from nixl_connect.returns import Returns, Waiter


class Slab:
    """Memory of one mapping, cut into blocks of one size. Goes when the last of them is gone."""

    def __init__(self, connector: Connector, size: int, block: int, *, pin: bool) -> None:
        self.block = block
        self.size = size
        self.memory: mmap.mmap = mmap.mmap(-1, size)
        self.descriptor: Descriptor = Descriptor(self.memory)
        self.pinned: cuda.Pinned | None = (
            cuda.Pinned(self.descriptor.ptr, size, self.memory) if pin else None
        )
        self.descriptor.register_memory(connector)
        self.free: list[int] = list(range(size - block, -1, -block))
        """Offsets of the blocks that nobody has."""

    @property
    def count(self) -> int:
        """How many blocks it has."""
        return self.size // self.block


class _Kind:
    """The slabs of one size of blocks."""

    def __init__(self) -> None:
        self.slabs: list[Slab] = []
        self.open: list[Slab] = []  # of these, those with something free
        self.free = 0  # blocks
        self.coming = 0  # blocks that are being added, less those that are taken already

    def add(self, slab: Slab) -> None:
        """Add a slab of which nothing is in use."""
        self.slabs.append(slab)
        self.open.append(slab)
        self.free += slab.count

    def take(self) -> tuple[Slab, int]:
        """Take a block."""
        slab = self.open[-1]
        offset = slab.free.pop()
        if not slab.free:
            self.open.pop()
        self.free -= 1
        return slab, offset

    def put(self, slab: Slab, offset: int) -> None:
        """Put one back."""
        if not slab.free:
            self.open.append(slab)
        slab.free.append(offset)
        self.free += 1

    def unused(self) -> list[Slab]:
        """Return the slabs of which nothing is in use."""
        return [slab for slab in self.open if len(slab.free) == slab.count]

    def drop(self, slab: Slab) -> None:
        """Take a slab out, of which nothing is in use."""
        self.slabs.remove(slab)
        self.open.remove(slab)
        self.free -= slab.count


class Slabs:
    """The slabs of a pool. From every thread, and event loops.

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

    def __init__(self, connector: Connector, most: int, slab_bytes: int, *, pin: bool) -> None:
        self._connector = connector
        self._slab_bytes = slab_bytes
        self._pin = pin
        self.most = most
        self.returns: Returns[tuple[Slab, int]] = Returns()
        """Where blocks come back to."""
        self._lock = threading.RLock()  # a finalizer or a signal handler may come in between
        self._kinds: dict[int, _Kind] = {}  # by the bytes of a block
        self._growing = 0  # bytes that are being added
        self._leased = self._leased_bytes = self._waits = 0

    def take(self, waiter: Waiter, nbytes: int, *, grow: bool) -> Lease | None:
        """Return a lease; None where nothing is free, nor may be added.

        Parameters
        ----------
        waiter : Waiter
            For whom. Has joined those who wait.
        nbytes : int
            How many bytes of the block to lend.
        grow : bool
            Whether more memory may be added, which may take long.

        Raises
        ------
        NotQuickError
            Memory may be added, and `grow` is False.
        """
        block = waiter.size
        while True:
            dropped: list[Slab] = []  # unpinned and unmapped without the lock
            with self._lock:
                if self.returns.closed:
                    raise ClosedError("the pool is closed")
                self._sort()
                kind = self._kinds.setdefault(block, _Kind())
                if kind.free > (0 if waiter.is_entitled else self.returns.count_woken(block)):
                    slab, offset = kind.take()
                    self._leased += 1
                    self._leased_bytes += block
                    break
                size = max(block, self._slab_bytes)
                wanted = max(self.returns.count_waiting(block), 1)
                over = self._registered + self._growing + size - self.most
                in_the_way = self._unused(kind, over)
                if wanted <= kind.coming or in_the_way is None:
                    return None
                if not grow:
                    raise NotQuickError
                self._drop(in_the_way, dropped)
                self._growing += size
                kind.coming += size // block - 1
            dropped.clear()
            self._grow(kind, block, size)
        memory = (ctypes.c_ubyte * nbytes).from_buffer(slab.memory, offset)
        # When nobody refers to it any more: neither lease, nor descriptor, nor operation.
        weakref.finalize(memory, self.returns.put, block, (slab, offset)).atexit = False
        return Lease(memory, nbytes)

    def _unused(self, kind: _Kind, over: int) -> list[Slab] | None:
        """Return slabs of other kinds of which nothing is in use. Lock held.

        Parameters
        ----------
        kind : _Kind
            Whose are not meant.
        over : int
            How many bytes they have to have; None is returned if there are not so many.
        """
        found = []
        for other in self._kinds.values():
            for slab in other.unused() if other is not kind else ():
                if over <= 0:
                    break
                found.append(slab)
                over -= slab.size
        return None if over > 0 else found

    def _grow(self, kind: _Kind, block: int, size: int) -> None:
        """Add what has been reserved. Without the lock, for which an event loop may wait."""
        slab = None
        try:
            slab = Slab(self._connector, size, block, pin=self._pin)
        finally:
            with self._lock:
                self._growing -= size
                kind.coming -= size // block - 1
                if slab is not None and not self.returns.closed:
                    kind.add(slab)
            self.returns.change(block)

    @property
    def _registered(self) -> int:
        return sum(slab.size for kind in self._kinds.values() for slab in kind.slabs)

    def _sort(self) -> None:
        """Put back what has come back. Lock held."""
        while not self.returns.closed:
            try:
                slab, offset = self.returns.blocks.popleft()
            except IndexError:
                return
            self._leased -= 1
            self._leased_bytes -= slab.block
            self._kinds[slab.block].put(slab, offset)

    def share(self, block: int) -> None:
        """Wake those who wait for blocks of a size, as far as there are any for them."""
        while self._spare(block) > 0 and self.returns.wake(block):
            pass

    def _spare(self, block: int) -> int:
        """Return how many blocks are free for which nobody has been woken."""
        with self._lock:
            self._sort()
            kind = self._kinds.get(block)
            return 0 if kind is None else kind.free - self.returns.count_woken(block)

    def note_wait(self) -> None:
        """Count somebody who waits."""
        with self._lock:
            self._waits += 1

    def trim(self) -> int:
        """Give back slabs of which nothing is in use; return how many bytes."""
        dropped: list[Slab] = []
        with self._lock:
            self._sort()
            for kind in self._kinds.values():
                self._drop(kind.unused(), dropped)
        self.returns.change(0)  # of no size
        return sum(slab.size for slab in dropped)

    def _drop(self, slabs: list[Slab], dropped: list[Slab]) -> None:
        """Move slabs of which nothing is in use to a list, whose end is theirs. Lock held."""
        for slab in slabs:
            self._kinds[slab.block].drop(slab)
            dropped.append(slab)

    def stats(self) -> dict[str, int]:
        """Return how much there is, and how much of it is in use."""
        with self._lock:
            self._sort()
            registered = self._registered
            return {
                "bytes": registered,
                "slabs": sum(len(kind.slabs) for kind in self._kinds.values()),
                "leases": self._leased,
                "leased_bytes": self._leased_bytes,
                "free_bytes": registered - self._leased_bytes,
                "waits": self._waits,
            }

    def close(self) -> None:
        """Lend no more, and give back what is not in use; the rest as it comes back."""
        with self._lock:
            self.returns.close()
            dropped, self._kinds = self._kinds, {}
            self._leased = self._leased_bytes = 0
        del dropped  # unpinned and unmapped without the lock

    def __repr__(self) -> str:
        figures = self.stats()
        return f"{figures['bytes']} of {self.most} bytes, {figures['leased_bytes']} in use"

"""The memory of a pool: slabs of blocks of one size, and what of them is free."""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections import Counter

from nixl_connect import cuda
from nixl_connect.connector import Connector
from nixl_connect.descriptor import Descriptor
from nixl_connect.errors import ClosedError
from nixl_connect.lease import Lease
from nixl_connect.permit import NotQuickError
from nixl_connect.returns import Returns


class Slab:
    """Memory of one mapping, cut into blocks of one size. Goes when the last of them is gone."""

    def __init__(self, connector: Connector, size: int, block: int, *, pin: bool) -> None:
        self.block = block
        self.size = size
        self.memory = mmap.mmap(-1, size)
        self.descriptor = Descriptor(self.memory)
        self.pinned = cuda.Pinned(self.descriptor.ptr, size, self.memory) if pin else None
        self.descriptor.register_memory(connector)


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
        # By the bytes of a block: slabs with the offsets of what is free in them.
        self._free: dict[int, list[tuple[Slab, int]]] = {}
        self._slabs: list[Slab] = []
        self._growing = 0  # bytes that are being added
        self._leased = self._leased_bytes = self._waits = 0

    def take(self, block: int, nbytes: int, *, grow: bool) -> Lease | None:
        """Return a lease; None where nothing is free, nor may be added.

        Raises
        ------
        NotQuickError
            Memory may be added, and `grow` is False.
        """
        while True:
            dropped: list[Slab] = []  # unpinned and unmapped without the lock
            with self._lock:
                if self.returns.closed:
                    raise ClosedError("the pool is closed")
                self._sort()
                free = self._free.setdefault(block, [])
                if free:
                    slab, offset = free.pop()
                    self._leased += 1
                    self._leased_bytes += block
                    break
                size = max(block, self._slab_bytes)
                if not self._has_room(size):
                    return None
                if not grow:
                    raise NotQuickError
                if self._bytes + size > self.most:
                    self._drop_unused(dropped)
                self._growing += size
            dropped.clear()
            self._grow(block, size)
        memory = (ctypes.c_ubyte * nbytes).from_buffer(slab.memory, offset)
        # When nobody refers to it any more: neither lease, nor descriptor, nor operation.
        weakref.finalize(memory, self.returns.put, (slab, offset)).atexit = False
        return Lease(memory, nbytes)

    def _has_room(self, size: int) -> bool:
        """Whether so much may be added, if need be in the place of what is free. Lock held."""
        over = self._bytes + size - self.most
        return over <= 0 or over <= sum(slab.size for slab in self._unused())

    def _grow(self, block: int, size: int) -> None:
        """Add what has been reserved. Without the lock, for which an event loop may wait."""
        slab = None
        try:
            slab = Slab(self._connector, size, block, pin=self._pin)
        finally:
            with self._lock:
                self._growing -= size
                if slab is not None and not self.returns.closed:
                    self._slabs.append(slab)
                    blocks = ((slab, i * block) for i in reversed(range(size // block)))
                    self._free.setdefault(block, []).extend(blocks)
            self.returns.change()

    @property
    def _bytes(self) -> int:
        return sum(slab.size for slab in self._slabs) + self._growing

    def _sort(self) -> None:
        """Put back what has come back. Lock held."""
        while not self.returns.closed:
            try:
                slab, offset = self.returns.blocks.popleft()
            except IndexError:
                return
            self._leased -= 1
            self._leased_bytes -= slab.block
            self._free.setdefault(slab.block, []).append((slab, offset))

    def has(self, block: int) -> bool:
        """Whether a block of this size is free."""
        with self._lock:
            self._sort()
            return bool(self._free.get(block))

    def note_wait(self) -> None:
        """Count somebody who waits."""
        with self._lock:
            self._waits += 1

    def trim(self) -> int:
        """Give back slabs of which nothing is in use; return how many bytes."""
        dropped: list[Slab] = []
        with self._lock:
            self._sort()
            self._drop_unused(dropped)
        self.returns.change()
        return sum(slab.size for slab in dropped)

    def _unused(self) -> set[Slab]:
        """Return the slabs of which nothing is in use. Lock held."""
        free = Counter(slab for blocks in self._free.values() for slab, _ in blocks)
        return {slab for slab, n in free.items() if n == slab.size // slab.block}

    def _drop_unused(self, dropped: list[Slab]) -> None:
        """Move slabs of which nothing is in use to a list, whose end is theirs. Lock held."""
        unused = self._unused()
        for free in self._free.values():
            free[:] = [item for item in free if item[0] not in unused]
        self._slabs = [slab for slab in self._slabs if slab not in unused]
        dropped.extend(unused)

    def stats(self) -> dict[str, int]:
        """Return how much there is, and how much of it is in use."""
        with self._lock:
            self._sort()
            registered = sum(slab.size for slab in self._slabs)
            return {
                "bytes": registered,
                "slabs": len(self._slabs),
                "leases": self._leased,
                "leased_bytes": self._leased_bytes,
                "free_bytes": registered - self._leased_bytes,
                "waits": self._waits,
            }

    def close(self) -> None:
        """Lend no more, and give back what is not in use; the rest as it comes back."""
        with self._lock:
            self.returns.close()
            dropped = self._free, self._slabs
            self._free, self._slabs = {}, []
            self._leased = self._leased_bytes = 0
        del dropped  # unpinned and unmapped without the lock

    def __repr__(self) -> str:
        figures = self.stats()
        return f"{figures['bytes']} of {self.most} bytes, {figures['leased_bytes']} in use"

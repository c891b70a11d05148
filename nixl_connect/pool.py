"""Host memory that is registered once and lent out again and again."""

from __future__ import annotations

import ctypes
import mmap
import queue
import threading
import time
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

from nixl_connect import cuda
from nixl_connect.checks import count, instance, seconds
from nixl_connect.connector import Connector
from nixl_connect.descriptor import Descriptor
from nixl_connect.errors import (
    ArgumentError,
    ClosedError,
    PoolExhaustedError,
)
from nixl_connect.lease import Lease
from nixl_connect.offload import on_thread

if TYPE_CHECKING:
    from typing_extensions import Self

# Blocks are powers of two, from a page up: so each starts at a page.
_SMALLEST = mmap.PAGESIZE


class _Slab:
    """Memory of one mapping, cut into blocks of one size. Goes when the last of them is gone."""

    def __init__(self, connector: Connector, size: int, block: int, *, pin: bool) -> None:
        self.block = block
        self.size = size
        self.memory = mmap.mmap(-1, size)
        self.descriptor = Descriptor(self.memory)
        self.pinned = cuda.Pinned(self.descriptor.ptr, size, self.memory) if pin else None
        self.descriptor.register_memory(connector)


class _Returns:
    """Where blocks come back to. From finalizers, which may run on any thread at any point."""

    __slots__ = ("closed", "queue")

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[tuple[_Slab, int]] = queue.SimpleQueue()
        self.closed = False

    def put(self, slab: _Slab, offset: int) -> None:
        if not self.closed:
            self.queue.put((slab, offset))


class HostPool:
    """Registered host memory, lent out in blocks. From every loop and thread.

    Registration is dear, above all where pages are pinned; memory of a pool is registered once. A
    block has the next power of two of bytes, a page or more, and starts at a page. Memory is added
    in slabs as it is needed, and given back by `trim` and `close`.

    Parameters
    ----------
    connector : Connector
        With which to register.
    max_bytes : int
        Most memory to have.
    slab_bytes : int
        How much to add at a time; larger blocks have slabs of their own.
    pin : bool, optional
        Whether CUDA should know the memory as pinned, so that copies from and to a GPU are direct.
        By default where there is a GPU and cuda-python.

    Raises
    ------
    ArgumentError
        A size is out of range. A ValueError.
    LibraryError
        `pin` is True, and there is no GPU or no cuda-python. An ImportError.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        max_bytes: int = 1 << 30,
        slab_bytes: int = 64 << 20,
        pin: bool | None = None,
    ) -> None:
        instance("connector", connector, Connector)
        self._connector = connector
        self._most = count("max_bytes", max_bytes)
        self._slab_bytes = _rounded(count("slab_bytes", slab_bytes))
        if self._slab_bytes > self._most:
            raise ArgumentError(f"slab_bytes is {self._slab_bytes}, more than {self._most} in all")
        if pin:
            cuda.require("a pool of pinned memory")
        self._pin = cuda.is_available() if pin is None else pin
        self._lock = threading.RLock()  # a finalizer or a signal handler may come in between
        # By the bytes of a block: slabs with the offsets of what is free in them.
        self._free: dict[int, list[tuple[_Slab, int]]] = {}
        self._slabs: list[_Slab] = []
        self._returns = _Returns()
        self._growing = 0  # bytes that are being added
        self._leased = self._leased_bytes = self._waits = 0

    async def acquire(self, nbytes: int, timeout: float | None = None) -> Lease:
        """Lease a block, and wait for one if all are in use.

        Parameters
        ----------
        nbytes : int
            How many bytes.
        timeout : float, optional
            Most seconds to wait; without end if not given.

        Raises
        ------
        PoolExhaustedError
            None came back in time. A TimeoutError.
        ArgumentError
            More than the pool may ever have. A ValueError.
        RegistrationError
            NIXL refuses more memory. A RuntimeError.
        ClosedError
            The pool is closed. A RuntimeError.
        """
        block, nbytes = self._sizes_of(nbytes)
        lease = self._take(block, nbytes, grow=False)
        if lease is None:
            lease = await on_thread(lambda: self.acquire_blocking(nbytes, timeout))
        return lease

    def acquire_blocking(self, nbytes: int, timeout: float | None = None) -> Lease:
        """Lease a block: `acquire` without an event loop."""
        block, nbytes = self._sizes_of(nbytes)
        end = None if timeout is None else time.monotonic() + seconds("timeout", timeout)
        waited = False
        while True:
            lease = self._take(block, nbytes, grow=True)
            if lease is not None:
                return lease
            if not waited:
                waited = True
                self._waits += 1
            left = _SLICE if end is None else min(end - time.monotonic(), _SLICE)
            if left <= 0:
                raise PoolExhaustedError(
                    f"no block of {block} bytes came back within {timeout} s: {self!r}"
                )
            try:
                self._put(*self._returns.queue.get(timeout=left))
            except queue.Empty:
                continue

    def _sizes_of(self, nbytes: int) -> tuple[int, int]:
        """Return the size of a block for so many bytes, and these."""
        nbytes = count("nbytes", nbytes)
        block = _rounded(nbytes)
        if block > self._most:
            raise ArgumentError(f"a block of {block} bytes is more than the {self._most} in all")
        return block, nbytes

    def _take(self, block: int, nbytes: int, *, grow: bool) -> Lease | None:
        """Return a lease; None where nothing is free, nor may be added."""
        while True:
            dropped: list[_Slab] = []  # unpinned and unmapped without the lock
            with self._lock:
                if self._returns.closed:
                    raise ClosedError("the pool is closed")
                self._sort()
                free = self._free.setdefault(block, [])
                if free:
                    slab, offset = free.pop()
                    self._leased += 1
                    self._leased_bytes += block
                    break
                if not grow or not self._reserve(max(block, self._slab_bytes), dropped):
                    return None
            dropped.clear()
            self._grow(block)
        memory = (ctypes.c_ubyte * nbytes).from_buffer(slab.memory, offset)
        # When nobody refers to it any more: neither lease, nor descriptor, nor operation.
        weakref.finalize(memory, self._returns.put, slab, offset).atexit = False
        return Lease(memory, nbytes)

    def _reserve(self, size: int, dropped: list[_Slab]) -> bool:
        """Note that so much is being added, if need be in the place of what is free. Lock held."""
        if self._bytes + size > self._most:
            self._drop_unused(dropped)
        if self._bytes + size > self._most:
            return False
        self._growing += size
        return True

    def _grow(self, block: int) -> None:
        """Add what has been reserved. Without the lock, for which an event loop may wait."""
        size = max(block, self._slab_bytes)
        slab = None
        try:
            slab = _Slab(self._connector, size, block, pin=self._pin)
        finally:
            with self._lock:
                self._growing -= size
                if slab is not None and not self._returns.closed:
                    self._slabs.append(slab)
                    blocks = ((slab, i * block) for i in reversed(range(size // block)))
                    self._free.setdefault(block, []).extend(blocks)

    @property
    def _bytes(self) -> int:
        return sum(slab.size for slab in self._slabs) + self._growing

    def _put(self, slab: _Slab, offset: int) -> None:
        with self._lock:
            if self._returns.closed:
                return
            self._leased -= 1
            self._leased_bytes -= slab.block
            self._free.setdefault(slab.block, []).append((slab, offset))

    def _sort(self) -> None:
        """Put back what has come back. Lock held."""
        try:
            while True:
                self._put(*self._returns.queue.get_nowait())
        except queue.Empty:
            pass

    def trim(self) -> int:
        """Give back slabs of which nothing is in use; return how many bytes."""
        dropped: list[_Slab] = []
        with self._lock:
            self._sort()
            self._drop_unused(dropped)
        return sum(slab.size for slab in dropped)

    def _drop_unused(self, dropped: list[_Slab]) -> None:
        """Move slabs of which nothing is in use to a list, whose end is theirs. Lock held."""
        for block, free in self._free.items():
            counted = Counter(slab for slab, _ in free)
            whole = {slab for slab, n in counted.items() if n == slab.size // block}
            free[:] = [item for item in free if item[0] not in whole]
            self._slabs = [slab for slab in self._slabs if slab not in whole]
            dropped.extend(whole)

    def stats(self) -> dict[str, int]:
        """Return what the pool has.

        Returns
        -------
        dict
            `bytes` and `slabs`: registered memory; `leases` and `leased_bytes`: blocks in use, and
            their sizes; `free_bytes`; `waits`: leases that had to wait. A closed pool has nothing:
            what is in use then is no longer its.
        """
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
        """Lend no more, and give back what is not in use; the rest as it comes back. Idempotent."""
        with self._lock:
            self._sort()
            self._returns.closed = True
            self._free.clear()
            self._slabs.clear()
            self._leased = self._leased_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a HostPool cannot be copied or pickled; make one in the other process")

    def __repr__(self) -> str:
        figures = self.stats()
        return (
            f"HostPool({figures['bytes']} of {self._most} bytes, {figures['leased_bytes']} in use)"
        )


# How long (seconds) a thread waits at a stretch: closing is seen, and slabs of other sizes.
_SLICE = 0.05


def _rounded(nbytes: int) -> int:
    return max(_SMALLEST, 1 << (nbytes - 1).bit_length())

"""Host memory that is registered once and lent out again and again."""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
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
from nixl_connect.permit import NotQuickError
from nixl_connect.returns import Returns, Waiter

if TYPE_CHECKING:
    import asyncio

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
        self._returns: Returns[tuple[_Slab, int]] = Returns()
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
        import asyncio  # late: see `loops`

        loop = asyncio.get_running_loop()
        search = _Search(self, nbytes, timeout)
        try:
            while True:
                woken: asyncio.Future[None] = loop.create_future()
                search.join(partial(_wake_on_loop, loop, woken, self._returns))
                try:
                    search.look(grow=False)
                except NotQuickError:
                    await on_thread(lambda: search.look(grow=True))
                if search.lease is not None:
                    return search.lease
                await asyncio.wait((woken,), timeout=search.left())
        finally:
            search.end()

    def acquire_blocking(self, nbytes: int, timeout: float | None = None) -> Lease:
        """Lease a block: `acquire` without an event loop."""
        search = _Search(self, nbytes, timeout)
        try:
            while True:
                asleep = threading.Lock()
                asleep.acquire()
                search.join(asleep.release)
                search.look(grow=True)
                if search.lease is not None:
                    return search.lease
                left = search.left()
                asleep.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX))
        finally:
            search.end()

    def _sizes_of(self, nbytes: int) -> tuple[int, int]:
        """Return the size of a block for so many bytes, and these."""
        nbytes = count("nbytes", nbytes)
        block = _rounded(nbytes)
        if block > self._most:
            raise ArgumentError(f"a block of {block} bytes is more than the {self._most} in all")
        return block, nbytes

    def _take(self, block: int, nbytes: int, *, grow: bool) -> Lease | None:
        """Return a lease; None where nothing is free, nor may be added.

        Raises
        ------
        NotQuickError
            Memory may be added, and `grow` is False.
        """
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
                size = max(block, self._slab_bytes)
                if not self._has_room(size):
                    return None
                if not grow:
                    raise NotQuickError
                if self._bytes + size > self._most:
                    self._drop_unused(dropped)
                self._growing += size
            dropped.clear()
            self._grow(block, size)
        memory = (ctypes.c_ubyte * nbytes).from_buffer(slab.memory, offset)
        # When nobody refers to it any more: neither lease, nor descriptor, nor operation.
        weakref.finalize(memory, self._returns.put, (slab, offset)).atexit = False
        return Lease(memory, nbytes)

    def _has_room(self, size: int) -> bool:
        """Whether so much may be added, if need be in the place of what is free. Lock held."""
        over = self._bytes + size - self._most
        return over <= 0 or over <= sum(slab.size for slab in self._unused())

    def _grow(self, block: int, size: int) -> None:
        """Add what has been reserved. Without the lock, for which an event loop may wait."""
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
            self._returns.change()

    @property
    def _bytes(self) -> int:
        return sum(slab.size for slab in self._slabs) + self._growing

    def _sort(self) -> None:
        """Put back what has come back. Lock held."""
        returned = self._returns.blocks
        while returned and not self._returns.closed:
            slab, offset = returned.popleft()
            self._leased -= 1
            self._leased_bytes -= slab.block
            self._free.setdefault(slab.block, []).append((slab, offset))

    def _has(self, block: int) -> bool:
        """Whether a block of this size is free."""
        with self._lock:
            self._sort()
            return bool(self._free.get(block))

    def _note_wait(self) -> None:
        with self._lock:
            self._waits += 1

    def trim(self) -> int:
        """Give back slabs of which nothing is in use; return how many bytes."""
        dropped: list[_Slab] = []
        with self._lock:
            self._sort()
            self._drop_unused(dropped)
        self._returns.change()
        return sum(slab.size for slab in dropped)

    def _unused(self) -> set[_Slab]:
        """Return the slabs of which nothing is in use. Lock held."""
        free = Counter(slab for blocks in self._free.values() for slab, _ in blocks)
        return {slab for slab, n in free.items() if n == slab.size // slab.block}

    def _drop_unused(self, dropped: list[_Slab]) -> None:
        """Move slabs of which nothing is in use to a list, whose end is theirs. Lock held."""
        unused = self._unused()
        for free in self._free.values():
            free[:] = [item for item in free if item[0] not in unused]
        self._slabs = [slab for slab in self._slabs if slab not in unused]
        dropped.extend(unused)

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
            self._returns.close()
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


class _Search:
    """One caller's search for a block: `join`, `look`, wait to be woken, and so on, until `end`."""

    def __init__(self, pool: HostPool, nbytes: int, timeout: float | None) -> None:
        self._pool = pool
        self._returns = pool._returns
        self._block, self._nbytes = pool._sizes_of(nbytes)
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + seconds("timeout", timeout)
        self._waiter: Waiter | None = None
        self._waited = False
        self.lease: Lease | None = None
        """What was found."""

    def join(self, wake: Callable[[], object]) -> None:
        """Have `wake` called, once, when it is worth to look again."""
        self._leave()
        self._waiter = Waiter(wake)
        self._returns.join(self._waiter)

    def look(self, *, grow: bool) -> None:
        """Take a block if there is one. Raises NotQuickError if not `grow` and that would help."""
        self.lease = self._pool._take(self._block, self._nbytes, grow=grow)
        if self.lease is None:
            self._returns.pass_on()

    def left(self) -> float | None:
        """Return for how many seconds to wait; None for without end."""
        if not self._waited:
            self._waited = True
            self._pool._note_wait()
        if self._until is None:
            return None
        left = self._until - time.monotonic()
        if left <= 0:
            raise PoolExhaustedError(
                f"no block of {self._block} bytes came back within {self._timeout} s: "
                f"{self._pool!r}"
            )
        return left

    def end(self) -> None:
        """Wait no more. Others may, for what this has left, or was woken for and did not need."""
        self._leave()
        changed = self._waiter is not None and self._waiter.seen != self._returns.changes
        if self.lease is None or changed or self._pool._has(self._block):
            self._returns.pass_on()

    def _leave(self) -> None:
        if self._waiter is not None:
            self._returns.leave(self._waiter)


def _wake_on_loop(
    loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None], returns: Returns[Any]
) -> None:
    """Wake a task. In a finalizer, too."""

    def finish() -> None:
        if not woken.done():
            woken.set_result(None)

    try:
        loop.call_soon_threadsafe(finish)
    except RuntimeError:  # the loop has been closed
        returns.pass_on()


def _rounded(nbytes: int) -> int:
    return max(_SMALLEST, 1 << (nbytes - 1).bit_length())

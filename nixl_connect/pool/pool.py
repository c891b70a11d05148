"""Host memory that is registered once and lent out repeatedly."""

from __future__ import annotations

import mmap
import time
from typing import TYPE_CHECKING, Any

from nixl_connect.checks import count, instance, seconds
from nixl_connect.engine.offload import on_thread
from nixl_connect.errors import ArgumentError, PoolExhaustedError
from nixl_connect.memory import cuda
from nixl_connect.memory.registrar import AbstractConnector
from nixl_connect.permit import NotQuickError
from nixl_connect.pool.lease import Lease
from nixl_connect.pool.slabs import Slabs
from nixl_connect.pool.waiter import AGAIN, TaskWaiter, ThreadWaiter, Waiter

if TYPE_CHECKING:
    from typing_extensions import Self


class HostPool:
    """Registered host memory, lent out in blocks to any event loop or thread.

    Registration is expensive, above all where pages are pinned, so a pool registers its memory only
    once. The size of a block is the next power of two, at least a page, and blocks are
    page-aligned. Memory is added in slabs as needed, and given back by `trim` and `close`.

    A forked child of a process whose connector was open is refused; only `close` does nothing
    there. Leases that it inherited have zeros of its own, which no peer sees.

    Parameters
    ----------
    connector : Connector
        Connector to register the memory with.
    max_bytes : int
        Maximum size of the pool, in bytes.
    slab_bytes : int
        Bytes to add at a time. Larger blocks get slabs of their own.
    pin : bool, optional
        Whether to register the memory with CUDA as pinned, so that copies to and from a GPU are
        direct. By default, only if a GPU and cuda-python are present.

    Raises
    ------
    ArgumentError
        A size is out of range. Also a ValueError.
    LibraryError
        `pin` is True, but there is no GPU or no cuda-python. Also an ImportError.
    """

    def __init__(
        self,
        connector: AbstractConnector,
        *,
        max_bytes: int = 1 << 30,
        slab_bytes: int = 64 << 20,
        pin: bool | None = None,
    ) -> None:
        instance("connector", connector, AbstractConnector)
        self._connector = connector
        most, slab = count("max_bytes", max_bytes), _rounded(count("slab_bytes", slab_bytes))
        if slab > most:
            raise ArgumentError(f"slab_bytes is {slab}, more than {most} in all")
        if pin:
            cuda.require("a pool of pinned memory")
        pin = cuda.is_available() if pin is None else pin
        self._slabs = Slabs(connector, most, slab, pin=pin)

    async def acquire(self, nbytes: int, timeout: float | None = None) -> Lease:
        """Lease a block, waiting for one if all are in use.

        Parameters
        ----------
        nbytes : int
            Number of bytes.
        timeout : float, optional
            Maximum seconds to wait; no limit by default. With 0 only what can be had at once. The
            time that it takes to register more memory does not count.

        Raises
        ------
        PoolExhaustedError
            No block was returned in time. Also a TimeoutError.
        ArgumentError
            `nbytes` is more than the pool may ever have. Also a ValueError.
        PoolMemoryError
            The system has no more memory. Also a MemoryError.
        RegistrationError
            NIXL refuses to register more memory. Also a RuntimeError.
        CudaError
            CUDA refuses to pin more memory. Also a RuntimeError.
        ClosedError
            The pool is closed, or of the process that this one was forked from. Also a
            RuntimeError.
        """
        search = _Search(self._slabs, nbytes, timeout)
        lease = search.at_once()
        if lease is not None:
            return lease
        import asyncio  # late: see `loops`

        waiter = TaskWaiter(search.block, asyncio.get_running_loop())
        try:
            search.begin(waiter)
            while True:
                try:
                    lease = search.look(grow=False)
                except NotQuickError:
                    lease = await on_thread(lambda: search.look(grow=True))
                if lease is not None:
                    return lease
                await waiter.wait(search.patience())
        finally:
            search.end()

    def acquire_blocking(self, nbytes: int, timeout: float | None = None) -> Lease:
        """Lease a block: the blocking form of `acquire`."""
        search = _Search(self._slabs, nbytes, timeout)
        lease = search.at_once()
        if lease is not None:
            return lease
        waiter = ThreadWaiter(search.block)
        try:
            search.begin(waiter)
            while True:
                lease = search.look(grow=True)
                if lease is not None:
                    return lease
                waiter.wait(search.patience())
        finally:
            search.end()

    def trim(self) -> int:
        """Give back slabs of which nothing is in use, and return their size in bytes."""
        return self._slabs.trim()

    def stats(self) -> dict[str, int]:
        """Return figures about the pool.

        Returns
        -------
        dict
            `bytes` and `slabs`: registered memory; `leases` and `leased_bytes`: blocks in use, and
            their sizes; `free_bytes`; `waits`: leases that had to wait. A closed pool has no
            memory: blocks that are still in use no longer belong to it.
        """
        return self._slabs.stats()

    def close(self) -> None:
        """Stop lending, and give back what is not in use, the rest on its return. Idempotent."""
        self._slabs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a HostPool cannot be copied or pickled; make one in the other process")

    def __repr__(self) -> str:
        return f"HostPool({self._slabs!r})"


class _Search:
    """One caller's search for a block: `begin`, then `look` and wait by turns, then `end`."""

    def __init__(self, slabs: Slabs, nbytes: int, timeout: float | None) -> None:
        self._slabs = slabs
        self._nbytes = count("nbytes", nbytes)
        self.block: int = _rounded(self._nbytes)
        """Bytes of the block."""
        if self.block > slabs.most:
            raise ArgumentError(
                f"a block of {self.block} bytes is more than the {slabs.most} in all"
            )
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._until = None if self._timeout is None else time.monotonic() + self._timeout
        self._waiter: Waiter | None = None
        self._has_waited = False

    def at_once(self) -> Lease | None:
        """Return a block if there is one for which nobody waits."""
        return self._slabs.at_once(self.block, self._nbytes)

    def begin(self, waiter: Waiter) -> None:
        """Get in line."""
        self._waiter = waiter
        self._slabs.join(waiter)

    def look(self, *, grow: bool) -> Lease | None:
        """Return a block if there is one. Raises NotQuickError if that takes growing."""
        assert self._waiter is not None
        return self._slabs.take(self._waiter, self._nbytes, grow=grow)

    def patience(self) -> float:
        """Return for how many seconds to wait before the next look."""
        if not self._has_waited:
            self._has_waited = True
            self._slabs.note_wait()
        if self._until is None:
            return AGAIN
        left = self._until - time.monotonic()
        if left <= 0:
            raise PoolExhaustedError(
                f"no block of {self.block} bytes came back within {self._timeout} s: "
                f"{self._slabs!r}"
            )
        return min(left, AGAIN)

    def end(self) -> None:
        """Wait no more."""
        if self._waiter is not None:
            self._slabs.leave(self._waiter)


def _rounded(nbytes: int) -> int:
    """Return the size of a block: powers of two, from a page up, so that each starts at a page."""
    return max(mmap.PAGESIZE, 1 << (nbytes - 1).bit_length())

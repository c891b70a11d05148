"""Waits of one event loop: a native waker, and the futures of those who wait."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import weakref
from collections.abc import Callable

from nixl_connect._native.operation import Operation
from nixl_connect._native.waker import Waker

# Unique in the process, so that a wait that came too late for its future finds none.
_tokens = itertools.count(1)


class LoopWaits:
    """The waits of one event loop on one connection. Belongs to the loop's thread.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        The running loop.
    collect : callable
        Called after each batch of completions, on the loop's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, collect: Callable[[], None]) -> None:
        self._loop = weakref.ref(loop)  # the loop refers to us
        self._collect = collect
        self._waker = Waker()
        self._futures: dict[int, asyncio.Future[None]] = {}
        loop.add_reader(self._waker.fd, self._drain)

    async def wait(self, operation: Operation, timeout: float | None) -> bool:
        """Wait for the end of an operation; return whether it came within `timeout` seconds."""
        token = next(_tokens)
        future = asyncio.get_running_loop().create_future()
        self._futures[token] = future
        try:
            if not operation.attach(self._waker, token):
                return True
            if timeout is None:
                await future
                return True
            done, _ = await asyncio.wait((future,), timeout=timeout)
            return bool(done)
        finally:
            del self._futures[token]
            if not future.done() or future.cancelled():
                operation.detach(token)

    def _drain(self) -> None:
        for token in self._waker.drain():
            future = self._futures.get(token)
            if future is not None and not future.done():
                future.set_result(None)
        self._collect()

    def close(self) -> None:
        """Wake those who still can be, and give the descriptor back. On the loop's thread."""
        self._drain()
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError, OSError):
                loop.remove_reader(self._waker.fd)

"""Waits of event loops: a native waker for each loop, and the futures of those who wait.

asyncio is imported late, by those who have it already: it is half of what this package would take
to import.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from nixl_connect._native.operation import Operation
from nixl_connect._native.waker import Waker
from nixl_connect.errors import BackendError

if TYPE_CHECKING:
    import asyncio

# How long (seconds) a loop looks at small transfers before it leaves them to the completion thread:
# what being woken by that would cost.
_LOOK = 300e-6
# Unique in the process, so that a wait that came too late for its future finds none.
_tokens = itertools.count(1)


class _LoopWaits:
    """The waits of one loop. Belongs to the loop's thread.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        The running loop.
    look : callable
        Looks for so many seconds whether a small transfer ends; whether to look for more.
    hear : callable
        Takes what has woken a waker: the tokens of finished waits.
    collect : callable
        Called after each batch of completions, on the loop's thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        look: Callable[[float], bool],
        hear: Callable[[Waker], list[int]],
        collect: Callable[[], None],
    ) -> None:
        self._loop = weakref.ref(loop)  # the loop refers to us
        self._look = look
        self._hear = hear
        self._looking = False
        self._collect = collect
        try:
            self._waker = Waker()
        except OSError as error:
            raise BackendError(f"no event loop can wait: {error}") from None
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._waker.fd, self._drain)

    async def wait(
        self, loop: asyncio.AbstractEventLoop, operation: Operation, timeout: float | None
    ) -> bool:
        """Wait for the end of an operation; return whether it came within `timeout` seconds."""
        alone = not self._futures  # in a burst the loop has other things to do
        if alone and operation.glance(_LOOK):
            self._collect()
            return True
        token = next(_tokens)
        future = loop.create_future()
        self._futures[token] = future
        try:
            if not operation.attach(self._waker, token):
                return True
            if operation.is_small and not self._looking and not alone:
                self._looking = True
                # Once for all that the loop's tasks begin in this turn.
                loop.call_soon(self._look_out, loop)
            if timeout is None:
                await future
                return True
            import asyncio

            done, _ = await asyncio.wait((future,), timeout=timeout)
            return bool(done)
        finally:
            del self._futures[token]
            if not future.done() or future.cancelled():
                operation.detach(token)

    def watch(
        self, loop: asyncio.AbstractEventLoop, operation: Operation, call: Callable[[], None]
    ) -> int:
        """Have the loop call something once an operation has ended; return the wait's token."""
        token = next(_tokens)
        self._watched[token] = call
        attached = False
        try:
            attached = operation.attach(self._waker, token)
        finally:
            if not attached:
                del self._watched[token]
        if not attached:
            loop.call_soon(call)
        return token

    def _look_out(self, loop: asyncio.AbstractEventLoop) -> None:
        """See small transfers end on this thread: sooner than through the descriptor."""
        if self._look(_LOOK):
            self._drain()
            loop.call_soon(self._look_out, loop)
        else:
            self._looking = False

    def _drain(self) -> None:
        loop = self._loop()
        alive = loop is not None and not loop.is_closed()
        for token in self._hear(self._waker):
            future = self._futures.get(token)
            # A future of a closed loop cannot call back, and nobody is left to be called.
            if future is not None and alive and not future.done():
                future.set_result(None)
            call = self._watched.pop(token, None)
            if call is not None and loop is not None and alive:
                loop.call_soon(call)
        if loop is not None and alive:
            loop.call_soon(self._collect)  # after those who wait
        else:
            self._collect()

    def close(self) -> None:
        """Wake those who still can be, and leave the loop. On the loop's thread."""
        self._drain()
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError, OSError):
                loop.remove_reader(self._waker.fd)


class Loops:
    """The waits of all loops on one connection. Safe to call from any thread.

    Parameters
    ----------
    look, hear, collect : callable
        As for the waits of one loop.
    """

    def __init__(
        self,
        look: Callable[[float], bool],
        hear: Callable[[Waker], list[int]],
        collect: Callable[[], None],
    ) -> None:
        self._look = look
        self._hear = hear
        self._collect = collect
        self._lock = threading.RLock()
        self._waits: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopWaits] = (
            weakref.WeakKeyDictionary()
        )
        self._closed = False

    def wait(self, operation: Operation, timeout: float | None) -> Coroutine[Any, Any, bool]:
        """Wait on the running loop for an operation's end; return whether it came in time."""
        import asyncio

        loop = asyncio.get_running_loop()
        waits = self._waits_of(loop)
        if waits is None:
            return _over()  # closing has ended every operation
        return waits.wait(loop, operation, timeout)

    def watch(self, operation: Operation, call: Callable[[], None]) -> int:
        """Have the running loop call something once an operation has ended. Returns at once.

        Returns
        -------
        int
            For `Operation.detach`, where the loop is closed before.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        waits = self._waits_of(loop)
        if waits is None:
            loop.call_soon(call)
            return 0
        return waits.watch(loop, operation, call)

    def _waits_of(self, loop: asyncio.AbstractEventLoop) -> _LoopWaits | None:
        with self._lock:
            if self._closed:
                return None
            waits = self._waits.get(loop)
            if waits is None:
                self._forget_closed()
                waits = self._waits[loop] = _LoopWaits(loop, self._look, self._hear, self._collect)
            return waits

    def _forget_closed(self) -> None:
        for loop, waits in list(self._waits.items()):
            if loop.is_closed():
                del self._waits[loop]
                waits.close()

    def close(self) -> None:
        """Wake those who still can be, and leave every loop."""
        with self._lock:
            self._closed = True
            left = list(self._waits.items())
            self._waits.clear()
        for loop, waits in left:
            _close_on_its_thread(loop, waits)


async def _over() -> bool:
    return True


def _close_on_its_thread(loop: asyncio.AbstractEventLoop, waits: _LoopWaits) -> None:
    import asyncio

    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if loop is running or loop.is_closed() or not loop.is_running():
        waits.close()
        return
    with contextlib.suppress(RuntimeError):  # it was closed just now
        loop.call_soon_threadsafe(waits.close)

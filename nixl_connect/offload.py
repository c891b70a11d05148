"""Runs what may take long on a thread of its own, for an event loop that goes on meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def on_thread(call: Callable[[], Result]) -> Result:
    """Run a call on a thread of its own, and return its result.

    Not in a pool: calls that wait for one peer must not keep those for others from running. And a
    daemon: a program that ends does not wait for it.
    """
    import asyncio  # late: see `loops`

    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        try:
            result, error = call(), None
        except BaseException as raised:
            result, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(finish, result, error)

    def finish(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    threading.Thread(target=run, name="nixl-begin", daemon=True).start()
    return await future

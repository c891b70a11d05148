"""Operations that a connector keeps until they end, for programs that do not wait for them."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from nixl_connect._native.operation import Operation
from nixl_connect.errors import NixlConnectError, StateError

if TYPE_CHECKING:
    import asyncio

logger: logging.Logger = logging.getLogger(__name__)


class Endable(Protocol):
    """What is kept: an operation, as the engine knows it."""

    def _error(self, native: Operation) -> NixlConnectError: ...


class _Entry:
    def __init__(
        self, operation: Endable, native: Operation, on_end: Callable[[Any], object] | None
    ) -> None:
        self.operation = operation
        self.native = native
        self.on_end = on_end
        self.token = 0  # of the wait of its loop


class Kept:
    """The operations that one engine keeps. Safe to call from any thread.

    An entry is taken out by whoever sees the end first, in one step: the loop of who asked for it,
    or the reaper where there was none, or where it is closed.
    """

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop | None, dict[int, _Entry]] = {None: {}}

    def keep(
        self,
        operation: Endable,
        native: Operation,
        on_end: Callable[[Any], object] | None,
        watch: Callable[[Operation, Callable[[], None]], int],
    ) -> None:
        """Keep an operation until it ends, and call `on_end` then.

        Parameters
        ----------
        operation : Endable
            As the program knows it, and as it is given to `on_end`.
        native : Operation
            Its own.
        on_end : callable, optional
            Runs on the running loop; on the reaper's thread where none runs, or where it is closed
            then.
        watch : callable
            Has the running loop call something at an operation's end.

        Raises
        ------
        StateError
            It is kept already.
        """
        if any(native.id in entries for entries in list(self._by_loop.values())):
            raise StateError(f"{operation!r} is kept already")
        loop = None
        if "asyncio" in sys.modules:  # else no loop runs
            import asyncio

            loop = asyncio._get_running_loop()
        entries = self._by_loop.setdefault(loop, {})
        entry = entries[native.id] = _Entry(operation, native, on_end)
        try:
            if loop is not None:
                entry.token = watch(native, functools.partial(_end, entries, native.id))
            native.keep()
        except BaseException:
            entries.pop(native.id, None)
            raise

    def look(self) -> None:
        """Tell of what has ended where no loop does: for the reaper."""
        loose = self._by_loop[None]
        for loop in list(self._by_loop):
            if loop is not None and loop.is_closed():
                entries = self._by_loop.pop(loop)
                while entries:  # what the loop was to call refers to this
                    number, entry = entries.popitem()
                    entry.native.detach(entry.token)
                    loose[number] = entry
        for number, entry in list(loose.items()):
            if entry.native.has_ended:
                _end(loose, number)


def _end(entries: dict[int, _Entry], number: int) -> None:
    """Let go of an operation that has ended, and tell of it."""
    entry = entries.pop(number, None)
    if entry is None:
        return
    native, on_end = entry.native, entry.on_end
    error = entry.operation._error(native) if native.reason else None
    if error is None:
        logger.debug("operation %d, which was kept, is complete", number)
    else:
        # Without `on_end` nobody else would hear of it.
        level = logging.WARNING if on_end is None else logging.DEBUG
        logger.log(level, "operation %d, which was kept: %s", number, str(error))
    if on_end is not None:
        try:
            on_end(entry.operation)
        except Exception:
            logger.exception("what operation %d was to call at its end has failed", number)

"""Starts the threads of this package that run Python, and refuses what there is no thread for.

UCX aborts the process where it cannot start its thread, so room for it is looked for before.
"""

from __future__ import annotations

import _thread
import threading
from types import BuiltinFunctionType

from nixl_connect._native.process import Quiet, spare_threads
from nixl_connect.errors import BackendError

_ADVICE = (
    "raise the limit of the user (ulimit -u), of the container (pids.max, --pids-limit) or of "
    "memory, whichever is reached"
)


def start(thread: threading.Thread) -> None:
    """Start a thread, on which no signal arrives that another could take.

    Raises
    ------
    BackendError
        The system refuses a thread, or `threading` makes none.
    """
    require_real_threads()
    try:
        with Quiet():
            thread.start()
    except (RuntimeError, MemoryError) as error:
        # CPython says MemoryError where it has memory and the system has none for a stack.
        raise BackendError(f"no thread can be started: {error}; {_ADVICE}") from None


def require_threads(count: int, what: str) -> None:
    """Raise BackendError unless so many threads can be started now.

    Parameters
    ----------
    count : int
        How many.
    what : str
        What needs them, for the message.
    """
    found = spare_threads(count)
    if found < count:
        raise BackendError(f"{what} takes {count} threads, and {found} can be started: {_ADVICE}")


def require_real_threads() -> None:
    """Raise BackendError where something has replaced the interpreter's threads by its own.

    Such "threads" run in turn on one real one, at certain calls. This package waits elsewhere, for
    threads that run by themselves: all would stand still.
    """
    for function in (_thread.start_new_thread, _thread.allocate_lock):
        if not isinstance(function, BuiltinFunctionType) or function.__module__ != "_thread":
            culprit = getattr(function, "__module__", None) or type(function).__module__
            raise BackendError(
                f"the threads of this process have been replaced, by {culprit}, and nixl_connect "
                "needs real ones: leave them as they are, with gevent by "
                "monkey.patch_all(thread=False), with eventlet by monkey_patch(thread=False)"
            )

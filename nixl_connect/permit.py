"""Whether a beginning may go on: its task may be cancelled, and on a loop it must not wait."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

from nixl_connect._native.lock import NotQuickError
from nixl_connect.errors import OperationCancelledError, StateError

__all__ = ["HASTY", "PATIENT", "NotQuickError", "Permit", "interruption"]


def interruption(doing: str) -> StateError:
    """Return the error of who runs in the middle of a call of its own thread, and needs its end."""
    return StateError(
        f"a signal handler or a finalizer has interrupted its thread while that {doing}: it cannot "
        "use the connector for this now; leave it to a task or to another thread"
    )


class Permit:
    """The permission to begin one operation on a thread that may wait.

    Parameters
    ----------
    patience : float
        For how many seconds, from now on.
    """

    patient = True
    """Whether it may wait: not on an event loop's thread."""

    def __init__(self, patience: float = math.inf) -> None:
        self.end: float = time.monotonic() + patience
        """When to have begun."""
        self.lock: AbstractContextManager[Any] = threading.RLock()
        """Held while a transfer is started, so that it is either started or revoked."""
        self.revoked: bool = False

    def revoke(self) -> None:
        """Forbid what has not been started."""
        with self.lock:
            self.revoked = True

    def check(self) -> None:
        """Raise OperationCancelledError once revoked."""
        if self.revoked:
            raise OperationCancelledError("nobody waits for the operation to begin any more")

    def need_patience(self) -> None:
        """Raise NotQuickError unless waiting is allowed."""
        if not self.patient:
            raise NotQuickError


class _HastyPermit(Permit):
    """That to begin at once on an event loop's thread, where nobody can revoke it meanwhile."""

    patient = False

    def __init__(self) -> None:
        super().__init__()
        self.lock: AbstractContextManager[Any] = contextlib.nullcontext()


HASTY = _HastyPermit()
PATIENT = Permit()
"""For those who block: nobody revokes it."""

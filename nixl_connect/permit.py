"""Whether a beginning may go on: its task may be cancelled, and on a loop it must not wait."""

from __future__ import annotations

import contextlib
import threading
from contextlib import AbstractContextManager
from typing import Any

from nixl_connect.errors import OperationCancelledError


class NotQuickError(Exception):
    """A beginning on an event loop would have to wait; it is to be repeated on another thread."""


class Permit:
    """The permission to begin one operation on a thread that may wait."""

    patient = True
    """Whether it may wait: not on an event loop's thread."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[Any] = threading.Lock()
        """Held while a transfer is started, so that it is either started or revoked."""
        self._revoked = False

    def revoke(self) -> None:
        """Forbid what has not been started."""
        with self.lock:
            self._revoked = True

    def check(self) -> None:
        """Raise OperationCancelledError once revoked."""
        if self._revoked:
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
        self.lock = contextlib.nullcontext()


HASTY = _HastyPermit()

"""Which notification keys a connection has used: metadata serves one transfer."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nixl_connect.errors import StateError

# Keys of this package: 32 hexadecimal digits, and the seal if there is one.
_OWN_KEY = re.compile(rb"[0-9a-f]{32}(?:\.s1\.|$)")
# How many are remembered.
_LIMIT = 4096


class UsedKeys:
    """The latest keys of passive operations of this package. Safe to call from any thread.

    Keys of other forms are their makers' affair: some may serve more than once.
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, threading.Event] = {}

    @contextmanager
    def reserve(self, key: bytes) -> Iterator[threading.Event]:
        """Reserve a key for a transfer; give it back unless the event that this yields was set.

        Raises
        ------
        StateError
            A transfer has used the key, or is about to.
        """
        started = threading.Event()
        own = _OWN_KEY.match(key) is not None
        if own and self._keys.setdefault(key, started) is not started:
            raise StateError(
                "this metadata has been used: an operation serves one transfer, so ask the peer "
                "for a new one"
            )
        try:
            yield started
        finally:
            if own and not started.is_set():
                self._keys.pop(key, None)
            while len(self._keys) > _LIMIT:
                with suppress(KeyError, StopIteration, RuntimeError):  # another thread's turn
                    del self._keys[next(iter(self._keys))]

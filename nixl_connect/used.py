"""Which notification keys a connection has used: metadata serves one transfer."""

from __future__ import annotations

import threading

from nixl_connect.auth import MARK
from nixl_connect.errors import StateError

# Keys of this package have so many hexadecimal digits, and the seal if there is one.
_DIGITS = 32
_MARK = MARK.encode()
# So many are remembered at least, and twice as many at most.
_LIMIT = 4096


class UsedKeys:
    """The latest keys of passive operations of this package. Safe to call from any thread.

    Keys of other forms are their makers' affair: some may serve more than once.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may begin an operation in the middle of it.
        self._lock = threading.RLock()
        # Two generations: to take the oldest out of one set, one by one, takes ever longer.
        self._keys: set[bytes] = set()
        self._older: set[bytes] = set()

    def claim(self, key: bytes) -> None:
        """Take a key for a transfer. Give it back unless that starts.

        Raises
        ------
        StateError
            A transfer has used the key, or is about to.
        """
        if len(key) != _DIGITS and key[_DIGITS : _DIGITS + len(_MARK)] != _MARK:
            return
        with self._lock:
            if key in self._keys or key in self._older:
                raise StateError(
                    "this metadata has been used: an operation serves one transfer, so ask the "
                    "peer for a new one"
                )
            self._keys.add(key)
            if len(self._keys) >= _LIMIT:
                self._keys, self._older = set(), self._keys

    def give_back(self, key: bytes) -> None:
        """Undo `claim`."""
        with self._lock:
            self._keys.discard(key)
            self._older.discard(key)

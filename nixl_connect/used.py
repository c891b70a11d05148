"""Which notification keys a connection has used: metadata serves one transfer."""

from __future__ import annotations

from contextlib import suppress

from nixl_connect.errors import StateError

# Keys of this package have so many hexadecimal digits, and the seal if there is one.
_DIGITS = 32
# How many are remembered.
_LIMIT = 4096


class UsedKeys:
    """The latest keys of passive operations of this package. Safe to call from any thread.

    Keys of other forms are their makers' affair: some may serve more than once.
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, object] = {}

    def claim(self, key: bytes) -> None:
        """Take a key for a transfer. Give it back unless that starts.

        Raises
        ------
        StateError
            A transfer has used the key, or is about to.
        """
        if len(key) != _DIGITS and key[_DIGITS : _DIGITS + 4] != b".s1.":
            return
        mine = object()
        if self._keys.setdefault(key, mine) is not mine:
            raise StateError(
                "this metadata has been used: an operation serves one transfer, so ask the peer "
                "for a new one"
            )
        while len(self._keys) > _LIMIT:
            with suppress(KeyError, StopIteration, RuntimeError):  # another thread's turn
                del self._keys[next(iter(self._keys))]

    def give_back(self, key: bytes) -> None:
        """Undo `claim`."""
        self._keys.pop(key, None)

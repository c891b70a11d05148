"""Which notification keys a connection has used: metadata serves one transfer."""

from __future__ import annotations

from collections import OrderedDict

from nixl_connect.auth import MARK
from nixl_connect.errors import StateError

# Keys of this package have so many hexadecimal digits, and the seal if there is one.
_DIGITS = 32
_MARK = MARK.encode()
# So many are remembered.
_LIMIT = 8192


class UsedKeys:
    """The latest keys of passive operations of this package. Safe to call from any thread.

    Keys of other forms are their makers' affair: some may serve more than once.

    Without a lock: a signal handler may begin an operation in the middle of it, and so each change
    is one call anyway, which the interpreter makes in one step.
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, object] = OrderedDict()  # the oldest first

    def claim(self, key: bytes) -> None:
        """Take a key for a transfer. Give it back unless that starts.

        Raises
        ------
        StateError
            A transfer has used the key, or is about to.
        """
        if len(key) != _DIGITS and key[_DIGITS : _DIGITS + len(_MARK)] != _MARK:
            return
        mine = object()
        if self._keys.setdefault(key, mine) is not mine:
            raise StateError(
                "this metadata has been used: an operation serves one transfer, so ask the "
                "peer for a new one"
            )
        if len(self._keys) > _LIMIT:
            self._keys.popitem(last=False)

    def give_back(self, key: bytes) -> None:
        """Undo `claim`."""
        self._keys.pop(key, None)

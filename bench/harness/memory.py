"""The memory that a workload moves: the same each round or not, and what is written to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.backends.base import Base, Bytes, touched

_ONE_SET = ("same", "used")


class Memory:
    """Gives each round its buffers.

    Parameters
    ----------
    kind : str
        ``same``: one set for all rounds, registered in advance where that exists. ``used``: one
        set, registered by each round. ``fresh``: new ones each round, the old ones dropped first,
        so that an allocator may give the same addresses. ``new``: addresses that were never used
        before.
    size, count : int
        Bytes of a buffer, buffers of a round.
    """

    def __init__(self, backend: Base, kind: str, size: int, count: int) -> None:
        self._kind = kind
        self._shape = (count, size)
        self._kept: list[Any] = []
        self._round: list[Bytes] = []
        if kind in _ONE_SET:
            block = touched(count * size)
            if kind == "same":
                self._kept.append(backend.register(block))
            self._round = list(block.reshape(self._shape))

    def next(self) -> list[Bytes]:
        """Return the buffers of one round."""
        count, size = self._shape
        if self._kind not in _ONE_SET:
            if self._kind == "new":
                self._kept.append(self._round)
            self._round = []
            self._round = [np.zeros(size, np.uint8) for _ in range(count)]
        return self._round


def mark(buffers: list[Bytes], number: int) -> None:
    """Write a number, which changes every round, to both ends of the first and last buffer."""
    for buffer in (buffers[0], buffers[-1]):
        buffer[0] = number % 251 + 1
        buffer[-1] = number % 251 + 1


def verify(buffers: list[Bytes], number: int) -> None:
    """Compare what `mark` wrote."""
    for buffer in (buffers[0], buffers[-1]):
        if not buffer[0] == buffer[-1] == number % 251 + 1:
            raise AssertionError(f"round {number}: wrong bytes, {buffer[:8]} .. {buffer[-8:]}")

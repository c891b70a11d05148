"""Dictionaries of arrays: offered, described, fetched into arrays of the same names."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from harness.backends.base import touched
from harness.work import Samples, Side

_SMALL = 1024


def arrays_of(count: int, size: int) -> dict[str, Any]:
    """Return so many arrays of `size` bytes in all: of more than one, every second is small."""
    if count == 1:
        return {"x": touched(size)}
    small = count // 2
    rows = (size - small * _SMALL * 4) // (count - small) // (_SMALL * 4)
    shapes = [(_SMALL,) if i % 2 else (rows, _SMALL) for i in range(count)]
    return {
        f"layers.{i}.weight": touched(4 * int(np.prod(shape))).view(np.float32).reshape(shape)
        for i, shape in enumerate(shapes)
    }


class Named:
    """The same arrays each round, one operation at a time, after one that is not counted.

    Figures: ``offer`` (with the message made), ``fetch`` (message at hand to arrays at hand),
    ``cycle`` (all of it, until the passive side knows).
    """

    @staticmethod
    async def passive(side: Side, rounds: int, count: int, size: int) -> Samples:
        """Offer."""
        arrays = arrays_of(count, size)
        ends = [array.reshape(-1).view(np.uint8) for array in arrays.values()]
        offered, cycles = [], []
        for number in range(rounds + 1):
            for end in (ends[0], ends[-1]):
                end[0] = end[-1] = number % 251 + 1
            began = time.monotonic()
            handle, message = await side.backend.offer_arrays(arrays)
            offered.append(time.monotonic() - began)
            side.link.send(message)
            await side.backend.told(handle)
            cycles.append(time.monotonic() - began)
        side.backend.forget_arrays()
        return {"offer": offered[1:], "cycle": cycles[1:]}

    @staticmethod
    async def active(side: Side, rounds: int, count: int, size: int) -> Samples:
        """Fetch."""
        expected = {name: (a.shape, a.dtype) for name, a in arrays_of(count, size).items()}
        first, last = next(iter(expected)), next(reversed(expected))
        fetched = []
        for number in range(rounds + 1):
            message = await side.link.receive()
            began = time.monotonic()
            arrays = await side.backend.fetch_arrays(message)
            fetched.append(time.monotonic() - began)
            if {name: (a.shape, a.dtype) for name, a in arrays.items()} != expected:
                raise AssertionError("other arrays")
            ends = [arrays[name].reshape(-1).view(np.uint8) for name in (first, last)]
            if any(end[i] != number % 251 + 1 for end in ends for i in (0, -1)):
                raise AssertionError(f"round {number}: wrong bytes")
            del arrays, ends
        side.backend.forget_arrays()
        return {"fetch": fetched[1:]}

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return passive | active

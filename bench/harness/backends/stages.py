"""Times of the stages of something that is done again and again."""

from __future__ import annotations

import time


class Stages:
    """Notes when each stage of a round ends.

    Attributes
    ----------
    samples : dict of str to list of float
        Seconds of each stage, and of the whole rounds as ``pair``.
    """

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}
        self._ends: list[float] = []
        self._names: list[str] = []

    def begin(self) -> None:
        """Begin a round."""
        self._names.clear()
        self._ends[:] = (time.perf_counter(),)

    def end(self, name: str) -> None:
        """End a stage."""
        self._ends.append(time.perf_counter())
        self._names.append(name)

    def keep(self) -> None:
        """Keep the round, which has ended with its last stage."""
        for name, began, ended in zip(self._names, self._ends[:-1], self._ends[1:], strict=True):
            self.samples.setdefault(name, []).append(ended - began)
        self.samples.setdefault("pair", []).append(self._ends[-1] - self._ends[0])

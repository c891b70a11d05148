"""What workloads are given and return: one process of a pair, and what it measured."""

from __future__ import annotations

from harness.backends.base import Base
from harness.link import Link

Samples = dict[str, list[float]]
"""Of each figure, seconds."""


class Side:
    """One process of a pair: its backend, and its links to the other side."""

    def __init__(self, backend: Base, links: list[Link]) -> None:
        self.backend = backend
        self.links = links
        self.link = links[0]

"""What ``nixl-connect top`` shows of a connector: the differences between two snapshots of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_ACTIVE = ("read", "write", "repeated")
_PASSIVE = ("readable", "writable")


@dataclass(frozen=True)
class Rates:
    """What a connector did between two snapshots, for each second."""

    seconds: float
    """From one to the other."""

    complete: float
    """Operations that completed."""

    failed: float
    """Operations that were cancelled or failed."""

    moved: float
    """Bytes that it read and wrote."""

    moved_by_peers: float
    """Bytes that peers read from it and wrote to it."""

    median: float | None
    """Seconds that reads and writes took, no more; None if none completed."""

    p99: float | None
    """The same of 99 of 100."""


@dataclass(frozen=True)
class Figures:
    """A connector, as it is and as it was since the snapshot before."""

    pid: int
    program: str
    name: str
    stats: dict[str, Any]
    operations: list[dict[str, Any]]
    """Its oldest operations."""

    peers: list[dict[str, Any]]
    """Its last used peers."""

    rates: Rates | None
    """None where there is nothing to compare with."""


def figures(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[Figures]:
    """Return the figures of each connector in the snapshots `now`, by process and name."""
    known = {
        (process["pid"], connector["id"]): (process["clock"], connector["stats"])
        for process in before
        for connector in process["connectors"]
    }
    found = []
    for process in now:
        for connector in process["connectors"]:
            clock, stats = known.get((process["pid"], connector["id"]), (math.inf, {}))
            if stats.get("duration_bounds") != connector["stats"].get("duration_bounds"):
                clock = math.inf  # another process, of another version
            seconds = process["clock"] - clock
            found.append(
                Figures(
                    pid=process["pid"],
                    program=process["program"],
                    name=connector["name"],
                    stats=connector["stats"],
                    operations=connector["operations"],
                    peers=connector["peers"],
                    rates=_rates(stats, connector["stats"], seconds) if seconds > 0 else None,
                )
            )
    return sorted(found, key=lambda item: (item.pid, item.name))


def _rates(before: dict[str, Any], now: dict[str, Any], seconds: float) -> Rates:
    def increase(kinds: Iterable[str], *results: str) -> float:
        return sum(
            float(now["ended"][kind][result] - before["ended"][kind][result])
            for kind in kinds
            for result in results
        )

    durations = [
        sum(now["ended"][kind]["durations"][i] - before["ended"][kind]["durations"][i]
            for kind in _ACTIVE)
        for i in range(len(now["duration_bounds"]) + 1)
    ]  # fmt: skip
    every = (*_ACTIVE, *_PASSIVE)
    return Rates(
        seconds=seconds,
        complete=increase(every, "complete") / seconds,
        failed=increase(every, "cancelled", "errored") / seconds,
        moved=increase(_ACTIVE, "bytes") / seconds,
        moved_by_peers=increase(_PASSIVE, "bytes") / seconds,
        median=_quantile(durations, now["duration_bounds"], 0.5),
        p99=_quantile(durations, now["duration_bounds"], 0.99),
    )


def _quantile(counts: list[int], bounds: list[float], part: float) -> float | None:
    """Return the upper bound of the bucket that a quantile is in; None of nothing."""
    wanted, seen = part * sum(counts), 0.0
    if wanted <= 0:
        return None
    for count, bound in zip(counts, [*bounds, math.inf], strict=True):
        seen += count
        if seen >= wanted:
            return bound
    return math.inf

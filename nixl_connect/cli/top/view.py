"""How ``nixl-connect top`` shows what it read: a page for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nixl_connect.cli import terminal
from nixl_connect.cli.text import format_bytes, format_seconds
from nixl_connect.cli.top.figures import Figures
from nixl_connect.engine.statistics import BOUNDS

# Rows of a table, so that a page stays a page. All connectors are in the JSON.
_MOST, _MOST_CONNECTORS = 12, 24


def page(figures: list[Figures], silent: list[int], stuck: float) -> RenderableType:
    """Return what a terminal shows.

    Parameters
    ----------
    figures : list of Figures
        Those of each connector.
    silent : list of int
        Processes that did not answer.
    stuck : float
        How old operations are, in seconds, that are listed one by one.
    """
    processes = len({item.pid for item in figures})
    head = f"{time.strftime('%H:%M:%S')}  {_many(processes, 'process', 'processes')}, "
    parts: list[RenderableType] = [Text(head + _many(len(figures), "connector", "connectors"))]
    if silent:
        who = ", ".join(map(str, silent))
        why = "stopped, or of another version"
        parts.append(Text(f"no answer from {who} that makes sense: {why}", "yellow"))
    if figures:
        more = _more(len(figures) - _MOST_CONNECTORS)
        parts += [*_titled("since the last update"), _connectors(figures), *more]
    # Before what a low terminal has no room for.
    parts += _operations(figures, stuck)
    if figures:
        parts += [*_titled("since it was opened, and memory that it keeps"), _holdings(figures)]
    parts += _peers(figures)
    return Group(*parts)


def document(figures: list[Figures], silent: list[int], stuck: float) -> dict[str, Any]:
    """Return the same for programs.

    Returns
    -------
    dict
        ``time`` (seconds of the epoch), ``connectors``, ``silent`` (process ids). A connector has
        ``pid``, ``program``, ``name``, ``rates`` (per second; the latencies in seconds), ``stats``
        as ``Connector.stats()`` returns them, ``peers``, and ``stuck``, its old operations.
    """
    return {
        "time": time.time(),
        "connectors": [_connector_json(item, stuck) for item in figures],
        "silent": silent,
    }


def _connector_json(item: Figures, stuck: float) -> dict[str, Any]:
    found = dataclasses.asdict(item)
    operations = found.pop("operations")
    found["stuck"] = [operation for operation in operations if operation["age"] >= stuck]
    for key, value in (found["rates"] or {}).items():
        if value == math.inf:
            found["rates"][key] = None  # longer than any bound
    return found


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _titled(text: str) -> list[RenderableType]:
    """Return what stands above a table."""
    return [Text(), Text(text, "dim")]


def _connectors(figures: list[Figures]) -> RenderableType:
    """Return what they do."""
    table = terminal.table(
        "process", "connector", "done/s", "failed/s", "it\nmoves", "peers\nmove", "half\nwithin",
        "99%\nwithin", "operations now",
        left=("process", "connector", "operations now"),
    )  # fmt: skip
    for item in figures[:_MOST_CONNECTORS]:
        rates = item.rates
        moving = ["", "", "", "", "", ""]
        if rates is not None:
            moving = [
                f"{rates.complete:.0f}",
                f"{rates.failed:.0f}" if rates.failed else "",
                _rate(rates.moved),
                _rate(rates.moved_by_peers),
                _bound(rates.median),
                _bound(rates.p99),
            ]
        phases = item.stats["operations"]["phases"]
        waiting = ", ".join(f"{count} {phase}" for phase, count in phases.items() if count)
        failed = Text(moving[1], "red")
        table.add_row(
            f"{item.pid} {item.program}",
            item.name,
            moving[0],
            failed,
            *moving[2:],
            f" {waiting or 'none'}",
        )
    return table


def _holdings(figures: list[Figures]) -> RenderableType:
    """Return what they hold."""
    table = terminal.table(
        "process", "connector", "done", "cancelled", "failed", "registered", "in use",
        "in\nquarantine", "peers", "came\nback",
        left=("process", "connector"),
    )  # fmt: skip
    for item in figures[:_MOST_CONNECTORS]:
        stats = item.stats
        operations = stats["operations"]
        complete, cancelled, errored = (
            sum(kind[result] for kind in stats["ended"].values())
            for result in ("complete", "cancelled", "errored")
        )
        table.add_row(
            str(item.pid),
            item.name,
            str(complete),
            str(cancelled),
            Text(str(errored), "red" if errored else ""),
            format_bytes(stats["registrations"]["bytes"]),
            format_bytes(operations["held_bytes"]),
            format_bytes(operations["quarantined_bytes"]),
            str(stats["peers"]["count"]),
            str(stats["peers"]["reloads"]),
        )
    return table


def _peers(figures: list[Figures]) -> list[RenderableType]:
    """Return whom they know, if anybody."""
    table = terminal.table(
        "peer", "process", "connector", "transfers\nnow", "regions\nknown", "idle\nfor",
        left=("peer", "process", "connector"),
    )  # fmt: skip
    rows = [(peer, item) for item in figures for peer in item.peers]
    rows.sort(key=lambda row: (row[0]["idle"], row[0]["name"]))
    for peer, item in rows[:_MOST]:
        table.add_row(
            peer["name"],
            str(item.pid),
            item.name,
            str(peer["in_flight"]),
            str(peer["regions"]),
            format_seconds(peer["idle"]) if peer["idle"] else "",
        )
    if not rows:
        return []
    return [*_titled("peers to read from and write to"), table, *_more(len(rows) - _MOST)]


def _operations(figures: list[Figures], stuck: float) -> list[RenderableType]:
    """Return what has taken long."""
    rows = [
        (operation, item)
        for item in figures
        for operation in item.operations
        if operation["age"] >= stuck
    ]
    if not rows:
        return _titled(f"no operation is older than {stuck:g} s")
    rows.sort(key=lambda row: -row[0]["age"])
    table = terminal.table(
        "age", "operation", "bytes", "phase", "deadline\nin", "peer", "process", "connector",
        left=("operation", "phase", "peer", "process", "connector"),
    )  # fmt: skip
    for operation, item in rows[:_MOST]:
        left = operation["left"]
        table.add_row(
            Text(format_seconds(operation["age"]), "yellow"),
            f" {operation['kind']} {operation['number']}",
            format_bytes(operation["nbytes"]),
            f" {_phase(operation)}",
            "" if left is None else format_seconds(left),
            f" {operation['peer']}",
            str(item.pid),
            item.name,
        )
    title = _titled(f"operations that are older than {stuck:g} s")
    return [*title, table, *_more(len(rows) - _MOST)]


def _phase(operation: dict[str, Any]) -> str:
    """Return what an operation is doing, and how many transfers of an offer to many are done."""
    phase: str = operation["phase"]
    # Processes with an older version do not tell them.
    transfers = operation.get("transfers", 1)
    if transfers == 1:
        return phase
    return f"{phase}, {operation.get('transfers_done', 0)} of {transfers or 'any'} done"


def _more(count: int) -> list[RenderableType]:
    """Return a line about what a table leaves out, if it leaves out any."""
    return [Text(f"and {count} more", "dim")] if count > 0 else []


def _rate(nbytes: float) -> str:
    return f"{format_bytes(nbytes)}/s" if nbytes else ""


def _bound(seconds: float | None) -> str:
    """Return the upper bound of a latency."""
    if seconds is None:
        return ""
    return (
        f">{format_seconds(BOUNDS[-1])}" if seconds == math.inf else f"<{format_seconds(seconds)}"
    )

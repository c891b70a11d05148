"""How the demo shows itself: a progress bar while it runs, a table or JSON at its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import DownloadColumn

from nixl_connect._version import __version__
from nixl_connect.cli import terminal
from nixl_connect.cli.demo.payload import HASH
from nixl_connect.cli.demo.plan import Row
from nixl_connect.cli.demo.result import Result, RowResult
from nixl_connect.cli.text import format_bytes, format_seconds

_PASSIVE = {"read": "readable", "write": "writable"}


@contextmanager
def progress(size: int) -> Iterator[Callable[[Row, int], None]]:
    """Show a progress bar; yield what moves it on."""
    column = DownloadColumn(binary_units=True)
    with terminal.progress("starting two processes", size, column) as advance:
        yield lambda row, nbytes: advance(nbytes, f"{row.kind:5} {_way(row)}")


def print_table(result: Result) -> None:
    """Print what was moved."""
    table = terminal.table(
        "operation", "way", "ops", "descriptors", "bytes", "time", "each", "throughput", HASH,
        left=("operation", "way", HASH),
    )  # fmt: skip
    for item in result.counted:
        row, seconds = item.row, sum(item.seconds)
        table.add_row(
            f"{_PASSIVE[row.kind]}/{row.kind}",
            _way(row),
            str(len(row.operations)),
            f"{len(row.operations[0])} x {format_bytes(row.operations[0][0])}",
            format_bytes(row.nbytes),
            format_seconds(seconds),
            format_seconds(seconds / len(row.operations)),
            _throughput(row.nbytes, seconds),
            "agrees" if item.verified else "DIFFER",
        )
    table.add_section()
    table.add_row(
        "total",
        "",
        str(sum(len(item.row.operations) for item in result.counted)),
        "",
        format_bytes(result.nbytes),
        format_seconds(result.seconds),
        "",
        _throughput(result.nbytes, result.seconds),
        "agrees" if result.ok else "FAILED",
    )
    console = terminal.console()
    console.print(table)
    console.print(_summary(result))


def print_json(result: Result) -> None:
    """Print the same, and more, as JSON."""
    contacts = [item for item in result.rows if not item.row.counted]
    report = {
        "ok": result.ok,
        "error": result.error,
        "version": __version__,
        "library": result.library or None,
        "hash": HASH,
        "seed": result.seed,
        "requested_bytes": result.size,
        "bytes": result.nbytes,
        "seconds": result.seconds,
        "bytes_per_second": _rate(result.nbytes, result.seconds),
        "elapsed_seconds": result.elapsed,
        "first_contact_seconds": {item.row.mover: item.seconds[0] for item in contacts},
        "rows": [_row_json(item) for item in result.counted],
    }
    print(json.dumps(report, indent=2))


def _row_json(item: RowResult) -> dict[str, Any]:
    row, seconds = item.row, sum(item.seconds)
    return {
        "operation": row.kind,
        "passive": _PASSIVE[row.kind],
        "mover": row.mover,
        "source": row.source,
        "target": row.target,
        "operations": len(row.operations),
        "descriptors_each": len(row.operations[0]),
        "bytes": row.nbytes,
        "seconds": seconds,
        "fastest_seconds": min(item.seconds),
        "slowest_seconds": max(item.seconds),
        "bytes_per_second": _rate(row.nbytes, seconds),
        "verified": item.verified,
    }


def _summary(result: Result) -> str:
    wrong = sum(len(item.wrong) for item in result.rows)
    if result.ok:
        verdict = "Every byte arrived as it was sent, by SHA-256."
    elif wrong:
        verdict = f"Bytes DIFFER after {wrong} of the operations."
    else:
        verdict = f"Only {format_bytes(result.nbytes)} of {format_bytes(result.size)} were moved."
    contacts = " and ".join(
        format_seconds(item.seconds[0]) for item in result.rows if not item.row.counted
    )
    library = result.library
    return (
        f"{verdict}\n"
        f"Times are of the transfers alone, from begin_read or begin_write to completion; the "
        f"whole run took {format_seconds(result.elapsed)}.\n"
        f"First contact of the two processes, before this: {contacts}. "
        f"NIXL {library.get('version') or 'of unknown version'}."
    )


def _way(row: Row) -> str:
    return f"{row.source}->{row.target}"


def _rate(nbytes: int, seconds: float) -> float | None:
    return nbytes / seconds if seconds else None


def _throughput(nbytes: int, seconds: float) -> str:
    return f"{format_bytes(nbytes / seconds)}/s" if seconds else ""

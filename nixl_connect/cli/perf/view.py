"""How ``nixl-connect perf client`` shows what it measured: a table, and JSON."""

from __future__ import annotations

import json

from nixl_connect._version import __version__
from nixl_connect.backend import library
from nixl_connect.cli import terminal
from nixl_connect.cli.perf.common import Row
from nixl_connect.cli.text import format_bytes, format_seconds


def print_table(rows: list[Row], transports: list[str]) -> None:
    """Print what each size took, and how it went."""
    table = terminal.table(
        "direction", "bytes", "transfers", "median", "p99", "fastest", "throughput"
    )
    for row in rows:
        table.add_row(
            row.direction,
            format_bytes(row.nbytes),
            str(row.transfers),
            format_seconds(row.median),
            format_seconds(row.p99),
            format_seconds(row.fastest),
            f"{format_bytes(row.throughput)}/s",
        )
    console = terminal.console()
    console.print(table)
    console.print(
        "A prepared transfer of each size, posted again and again and waited for each time; the "
        "first was compared, every byte."
    )
    if transports:
        console.print(f"UCX used {', '.join(transports)}.")


def print_json(rows: list[Row], host: str, port: int, transports: list[str]) -> None:
    """Print the same as JSON."""
    report = {
        "version": __version__,
        "nixl": library.load().version,
        "host": host,
        "port": port,
        "operation": "prepared",
        "transports": transports,
        "rows": [
            {
                "direction": row.direction,
                "bytes": row.nbytes,
                "transfers": row.transfers,
                "median_seconds": row.median,
                "p99_seconds": row.p99,
                "fastest_seconds": row.fastest,
                "bytes_per_second": row.throughput,
            }
            for row in rows
        ],
    }
    print(json.dumps(report, indent=2))

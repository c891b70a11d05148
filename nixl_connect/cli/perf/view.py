"""How ``nixl-connect perf client`` shows what it measured: a table, JSON, a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from nixl_connect._version import __version__
from nixl_connect.backend import library
from nixl_connect.cli import terminal
from nixl_connect.cli.errors import CommandError
from nixl_connect.cli.perf.common import Row
from nixl_connect.cli.text import format_bytes, format_seconds


def print_table(rows: list[Row]) -> None:
    """Print what each size took."""
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


def print_json(rows: list[Row], host: str, port: int) -> None:
    """Print the same as JSON."""
    report = {
        "version": __version__,
        "nixl": library.load().version,
        "host": host,
        "port": port,
        "operation": "prepared",
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


def plotter(path: Path | None) -> Callable[[list[Row]], None] | None:
    """Return what draws latency and throughput by size into a file.

    Raises
    ------
    CommandError
        matplotlib is not installed, or does not know the file's type.
    """
    if path is None:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CommandError("--plot needs matplotlib: pip install matplotlib", status=2) from None
    figure = Figure(figsize=(9, 4), layout="constrained")
    known = figure.canvas.get_supported_filetypes()
    if not path.parent.is_dir():
        raise CommandError(f"--plot: there is no folder {path.parent}", status=2)
    if path.suffix[1:].lower() not in known:
        raise CommandError(f"--plot: a file ends in one of {', '.join(sorted(known))}", status=2)

    def draw(rows: list[Row]) -> None:
        latency, throughput = figure.subplots(1, 2)
        for direction in dict.fromkeys(row.direction for row in rows):
            mine = [row for row in rows if row.direction == direction]
            sizes = [row.nbytes for row in mine]
            latency.plot(sizes, [row.median * 1e6 for row in mine], marker=".", label=direction)
            throughput.plot(
                sizes, [row.throughput / 1e9 for row in mine], marker=".", label=direction
            )
        for axes, title, unit in (
            (latency, "Median latency", "microseconds"),
            (throughput, "Throughput", "GB/s"),
        ):
            axes.set(title=title, xlabel="bytes", ylabel=unit, xscale="log", yscale="log")
            axes.grid(visible=True, alpha=0.3)
            axes.legend()
        try:
            figure.savefig(path, format=path.suffix[1:].lower())
        except OSError as error:
            raise CommandError(f"--plot: {path}: {error.strerror}") from None

    return draw

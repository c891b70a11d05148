"""What ``nixl-connect perf client`` measured, as a picture: latency and throughput by size."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from nixl_connect._version import __version__
from nixl_connect.backend import library
from nixl_connect.cli.errors import CommandError
from nixl_connect.cli.perf.common import Row
from nixl_connect.cli.text import format_bytes, format_seconds

Draw: TypeAlias = "Callable[[list[Row], str, list[str]], None]"
"""Draws rows, that came from a host, by some transports."""

# Ticks between powers of ten, where there are few of those.
_BETWEEN = (1.0, 2.0, 5.0)
_MOST_SIZES = 8


def plotter(path: Path | None) -> Draw | None:
    """Return what draws into a file; None without one.

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
        raise CommandError(
            "--plot needs matplotlib: pip install 'nixl-connect[plot]'", status=2
        ) from None
    figure = Figure(figsize=(9, 4), layout="constrained")
    known = figure.canvas.get_supported_filetypes()
    if not path.parent.is_dir():
        raise CommandError(f"--plot: there is no folder {path.parent}", status=2)
    if path.suffix[1:].lower() not in known:
        raise CommandError(f"--plot: a file ends in one of {', '.join(sorted(known))}", status=2)

    def draw(rows: list[Row], host: str, transports: list[str]) -> None:
        latency, throughput = figure.subplots(1, 2)
        _panel(latency, "Median latency", rows, lambda row: row.median, format_seconds)
        _panel(throughput, "Throughput", rows, lambda row: row.throughput, _rate)
        figure.suptitle(_title(host, transports), fontsize="small")
        try:
            figure.savefig(path, format=path.suffix[1:].lower())
        except OSError as error:
            raise CommandError(f"--plot: {path}: {error.strerror}") from None

    return draw


def _rate(throughput: float) -> str:
    return f"{format_bytes(throughput)}/s"


def _title(host: str, transports: list[str]) -> str:
    """Return what a reader has to know of the figures a year later."""
    today = datetime.date.today().isoformat()
    nixl = library.load().version or "of unknown version"
    by = f", UCX by {', '.join(transports)}" if transports else ""
    return (
        f"nixl-connect perf, prepared transfers to {host}, {today}\n"
        f"nixl-connect {__version__}, NIXL {nixl}{by}"
    )


def _panel(
    axes: Any,
    title: str,
    rows: list[Row],
    figure_of: Callable[[Row], float],
    shown: Callable[[float], str],
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    for direction in dict.fromkeys(row.direction for row in rows):
        mine = [row for row in rows if row.direction == direction]
        axes.plot(
            [row.nbytes for row in mine],
            [figure_of(row) for row in mine],
            "o-",
            ms=4,
            label=direction,
        )
    axes.set(title=title, xlabel="size of a transfer", xscale="log", yscale="log")
    sizes = sorted({row.nbytes for row in rows})
    values = [figure_of(row) for row in rows]
    # One size, or figures that hardly differ, would leave an axis without a tick.
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    low, high = min(values), max(values)
    spread = max(1.5, (high / low) ** 0.05)
    axes.set_ylim(low / spread, high * spread)
    axes.xaxis.set_major_locator(FixedLocator(sizes[:: -(-len(sizes) // _MOST_SIZES)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
    axes.tick_params("x", rotation=30)
    between = _BETWEEN if high / low < 1000 else _BETWEEN[:1]
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=between))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(visible=True, alpha=0.3)
    axes.legend()

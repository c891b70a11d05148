"""What ``nixl-connect perf client`` measured, as a picture: latency and throughput by size."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from nixl_connect._version import __version__
from nixl_connect.backend import library
from nixl_connect.cli.errors import CommandError
from nixl_connect.cli.perf.common import Row
from nixl_connect.cli.text import format_bytes, format_seconds

Draw: TypeAlias = "Callable[[list[Row], str, list[str]], None]"
"""Draws rows, that came from a host, by some transports."""

_MOST_TICKS = 8
# By which an axis goes beyond what is on it: so figures that hardly differ have two ticks, too.
_ROOM = 2.5


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
        _panel(latency, rows, _LATENCY)
        _panel(throughput, rows, _THROUGHPUT)
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


def _panel(axes: Any, rows: list[Row], drawn: _Drawn) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    for direction in dict.fromkeys(row.direction for row in rows):
        mine = [row for row in rows if row.direction == direction]
        figures = [drawn.figure_of(row) for row in mine]
        axes.plot([row.nbytes for row in mine], figures, "o-", markersize=4, label=direction)
    axes.set(title=drawn.title, xlabel="size of a transfer", xscale="log", yscale="log")
    sizes = sorted({row.nbytes for row in rows})
    axes.set_xlim(sizes[0] / _ROOM, sizes[-1] * _ROOM)
    every = -(-len(sizes) // _MOST_TICKS)
    axes.xaxis.set_major_locator(FixedLocator(sizes[::every]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
    axes.tick_params("x", rotation=30)
    values = [drawn.figure_of(row) for row in rows]
    low, high = min(values) / _ROOM, max(values) * _ROOM
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(drawn.ticks(low, high)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: drawn.shown(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(visible=True, alpha=0.3)
    axes.legend()


def decimal_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two: 1, 2 and 5 of a power of ten, or its powers alone."""
    powers = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    fine = [x * power for power in powers for x in (1, 2, 5) if low <= x * power <= high]
    return fine if len(fine) <= _MOST_TICKS else [x for x in powers if low <= x <= high]


def binary_ticks(low: float, high: float) -> list[float]:
    """Return powers of two between two numbers, as far apart as there is room for."""
    found = [2.0**n for n in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    return found[:: -(-len(found) // _MOST_TICKS)]


class _Drawn(NamedTuple):
    """What one panel shows."""

    title: str
    figure_of: Callable[[Row], float]
    shown: Callable[[float], str]
    ticks: Callable[[float, float], list[float]]


_LATENCY = _Drawn("Median latency", lambda row: row.median, format_seconds, decimal_ticks)
_THROUGHPUT = _Drawn("Throughput", lambda row: row.throughput, _rate, binary_ticks)

"""The picture: latency and throughput by size, and the cost of an operation by number pending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from harness.cases import ALL
from harness.measure import Measurement

_LABELS = {
    "floor": "floor (NIXL's C API, spinning)",
    "nixl_connect": "nixl_connect",
    "nixl": "NIXL's Python API, spinning",
    "dynamo": "dynamo.nixl_connect",
    "ucxx": "ucxx, asyncio",
    "zmq": "pyzmq, asyncio",
    "shm": "shared memory, copied in and out",
}
_COLOURS = dict(zip(ALL, plt.colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
_DARK = (
    "@media (prefers-color-scheme:dark){svg{fill:#e8e8e8}"
    '[style*="fill: #ffffff"]{fill:#131416!important}'
    '[style*="stroke: #000000"]{stroke:#c4c4c4!important}'
    '[style*="stroke: #b0b0b0"]{stroke:#5a5a5a!important}}'
)
"""For who reads in a dark theme."""
# No dates or random names in the file: it is kept in the repository.
mpl.rcParams["svg.hashsalt"] = "nixl_connect"


def draw(path: Path, measured: Measurement) -> None:
    """Write the picture."""
    # As wide as a page: what is written is then as large as on it.
    figure, ((latency, throughput), (pending, legend)) = plt.subplots(2, 2, figsize=(8.5, 7.5))
    for subject in ALL:
        points = _points(measured, "size ", subject, "read")
        if points:
            sizes, seconds = zip(*points, strict=True)
            _line(latency, subject, sizes, [s * 1e6 for s in seconds])
            rates = [size / s / 1e9 for size, s in points]
            _line(throughput, subject, sizes, rates)
        points = _points(measured, "burst ", subject, "operation")
        if points:
            counts, seconds = zip(*points, strict=True)
            _line(pending, subject, counts, [s * 1e6 for s in seconds])
    _axes(latency, "Latency of a read", "bytes", "us")
    _axes(throughput, "Throughput of one read at a time", "bytes", "GB/s")
    _axes(pending, "Cost of an 8-byte operation, whole cycle", "operations at once", "us")
    handles, labels = throughput.get_legend_handles_labels()
    legend.legend(handles, labels, loc="center", frameon=False)
    legend.axis("off")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # matplotlib writes colours as styles; what has none is black.
    drawing = path.read_text()
    path.write_text(drawing.replace(" <defs>", f" <style>{_DARK}</style>\n <defs>", 1))


def _points(
    measured: Measurement, prefix: str, subject: str, figure: str
) -> list[tuple[int, float]]:
    points = []
    for case, subjects in measured.results.items():
        if case.startswith(prefix) and figure in subjects.get(subject, {}).get("figures", {}):
            points.append(
                (int(case[len(prefix) :]), subjects[subject]["figures"][figure]["median"])
            )
    return sorted(points)


def _line(axes: Any, subject: str, x: Any, y: Any) -> None:
    ours = subject == "nixl_connect"
    axes.plot(
        x,
        y,
        marker="o",
        markersize=5 if ours else 3,
        linewidth=2.5 if ours else 1.2,
        label=_LABELS[subject],
        color=_COLOURS[subject],
        zorder=3 if ours else 2,
    )


def _axes(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="major", alpha=0.3)

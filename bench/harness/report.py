"""Writes what a run has measured: a page with the table and the picture, and all figures."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from harness.measure import Figures, Measurement
from harness.targets import Row, us

# Figures that are too many for the columns of one table.
_WIDE = 6
# Samples without which there is no 99th percentile.
_ENOUGH = 100
_MET = {True: "met", False: "**missed**", None: "-"}


def machine() -> str:
    """Describe the machine."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{model}, {os.cpu_count()} processors, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}"
    )


def commit() -> str:
    """Return which commit of this repository is measured; empty where that cannot be told."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def write(
    folder: Path, measured: Measurement, imports: dict[str, float], rows: list[Row], command: str
) -> None:
    """Write ``benchmarks.md`` and ``benchmarks.json`` into a folder."""
    today = datetime.date.today().isoformat()
    measured_at = commit()  # before there are files that differ
    (folder / "benchmarks.json").write_text(
        json.dumps(
            {
                "date": today,
                "machine": machine(),
                "commit": measured_at,
                "command": command,
                "versions": measured.versions,
                "missing": measured.missing,
                "imports": imports,
                "results": measured.results,
            },
            indent=1,
        )
        + "\n"
    )
    state = f", commit {measured_at}" if measured_at else ""
    parts = [_HEAD.format(date=today, machine=machine(), command=command, state=state)]
    parts.append(_markdown([("figure", "target", "measured", ""), *map(_row, rows)]))
    parts += limits(rows)
    parts.append("\n![Latency, throughput, and cost by number pending](benchmarks.svg)\n")
    parts.append("\n## What was measured\n\n")
    parts += [f"- {name}: {version}\n" for name, version in measured.versions.items()]
    for name, reason in measured.missing.items():
        parts.append(f"- {name}: left out: {reason}\n")
    parts.append("\n## Medians of every case\n\n")
    parts.append(_LEGEND)
    for case, subjects in measured.results.items():
        parts.append(_case(case, subjects))
    (folder / "benchmarks.md").write_text("".join(parts))


_HEAD = """# Benchmarks

Made by `{command}` on {date}{state}: {machine}. Two processes on one host; all subjects take turns
in one run; medians. The machine is shared, so only ratios within a run say something. "Floor" is a
C program on NIXL's C API, both sides spinning but for `sleeping`; "reference", `dynamo` below, is
`dynamo.nixl_connect`.

"""


_LEGEND = """- `create`: to offer memory, and make the message that says so.
- `read`: from that message to the bytes. `told`: from then on to the passive side's waiter;
  negative where that comes first. `cycle`: all of it, the message's way included.
- `operation`: a cycle of many that are begun together, for each; in `fan`, a round of eight passive
  sides.
- `repost`: a prepared transfer. `stall`: the longest time that an event loop did not get to run.
- `pair`: both ends in one process, which registers and deregisters for each; with memory `used`
  before, or `new` each time. Its stages: `register` the source (with its descriptor and operation),
  `describe` it (the message), `load` that (what the floor loaded last is not loaded again;
  nixl_connect only parses here), register the `destination`, make the `request`, `post` it until
  the bytes are there, `told`, `release` all. nixl_connect's `begin` is from the load to the post,
  so that its `post` is only the wait.
- `arrays`: dictionaries of named arrays, by `nixl_connect.arrays` into a pool. `plain`, `nixl`,
  `ucxx`, `zmq` and `shm` send a manifest made by hand, and receive into memory that is kept (and
  registered where that exists); `pickle5` and `safetensors` make new arrays each time, as they do.
- `once`: in new processes. The first connector or agent (`open`), and a `second`; the first
  `contact` with a peer, a read of 8 bytes, and the `next`; to `register` 256 MiB, and `again`.
- `idle`: processor time per second, with nothing pending and with one operation.
- In brackets: the 99th percentile or, of fewer than 100 samples, how many there were.
- CPU: processor time of each side for a sample, user + system.

"""


def limits(rows: list[Row]) -> list[str]:
    """Return the lines that say what limits the targets that are missed."""
    lines = [f"- *{row.what}*: {row.limit}\n" for row in rows if row.met is False]
    return ["\nWhat limits those that are missed:\n\n", *lines] if lines else []


def _row(row: Row) -> tuple[str, ...]:
    return row.what, row.target, row.value, _MET[row.met]


def _markdown(lines: list[tuple[str, ...]]) -> str:
    head, *body = lines
    rule = tuple("---" for _ in head)
    return "".join("| " + " | ".join(line) + " |\n" for line in (head, rule, *body))


def _case(case: str, subjects: dict[str, Figures]) -> str:
    names = list(dict.fromkeys(f for item in subjects.values() for f in item["figures"]))
    if len(names) > _WIDE:
        return _turned(case, names, subjects)
    lines: list[tuple[str, ...]] = [(case, *names, "CPU: passive", "active")]
    for subject, item in subjects.items():
        cells = [
            _spread(item["figures"][name]) if name in item["figures"] else "" for name in names
        ]
        lines.append((subject, *cells, *_cpu(item)))
    return _markdown(lines) + "\n"


def _turned(case: str, names: list[str], subjects: dict[str, Figures]) -> str:
    """Return a table of many figures, a line for each, the whole last."""
    lines: list[tuple[str, ...]] = [(case, *subjects)]
    for name in sorted(names, key="pair".__eq__):
        figures = (item["figures"].get(name) for item in subjects.values())
        lines.append((name, *("" if figure is None else _spread(figure) for figure in figures)))
    return _markdown(lines) + "\n"


def _spread(figure: dict[str, Any]) -> str:
    """Return a median, with the 99th percentile where there are enough samples for one."""
    few = figure["n"] < _ENOUGH
    return (
        f"{us(figure['median'])} ({figure['n']})"
        if few
        else (f"{us(figure['median'])} (p99 {us(figure['p99'])})")
    )


def _cpu(item: Figures) -> tuple[str, str]:
    """Return each side's processor time per sample, user and system."""
    count = max(figure["n"] for figure in item["figures"].values())
    texts = []
    for side in ("passive", "active"):
        user, system = (sum(c[side][kind] for c in item["cost"]) for kind in ("user", "system"))
        texts.append(f"{us(user / count)} + {us(system / count)}")
    return texts[0], texts[1]

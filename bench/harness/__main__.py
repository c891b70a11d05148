"""Measure, and write the page: ``python -m harness``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import quotes, report
from harness.cases import ALL, NAMED, cases
from harness.measure import Measurement
from harness.targets import table

_ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the command line."""
    every = tuple(dict.fromkeys((*ALL, *NAMED)))
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of all: some minutes")
    parser.add_argument(
        "--only", metavar="NAME", help="cases whose names begin so, several with commas"
    )
    parser.add_argument(
        "--subjects", default=",".join(every), help="of " + ", ".join(every) + " (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write to; only a whole run has a default"
    )
    options = parser.parse_args()
    subjects = set(options.subjects.split(","))
    if not subjects <= set(every):
        parser.error(f"--subjects: there is no {', '.join(sorted(subjects - set(every)))}")
    chosen = cases(quick=options.quick)
    if options.only:
        chosen = [case for case in chosen if case.name.startswith(tuple(options.only.split(",")))]
        if not chosen:
            parser.error(f"--only: no case begins with {options.only!r}")
    measured = Measurement()
    measured.run(chosen, subjects)
    imports = {} if options.only else measured.imports(subjects)
    rows = table(measured, imports)
    for row in rows:
        if row.met is not None:
            print(f"{'met   ' if row.met else 'MISSED'}  {row.what}: {row.value} ({row.target})")
    partial = options.quick or options.only or subjects != set(every)
    folder = options.out or (None if partial else _ROOT / "docs")
    if folder is not None:
        from harness import plots

        folder.mkdir(parents=True, exist_ok=True)
        command = "make bench" + (f' ARGS="{" ".join(sys.argv[1:])}"' if sys.argv[1:] else "")
        report.write(folder, measured, imports, rows, command)
        plots.draw(folder / "benchmarks.svg", measured)
        if folder.resolve() == _ROOT / "docs":
            quotes.refresh()
        print(f"written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

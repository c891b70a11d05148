"""Write the table of what can be transferred, of the tests that pass, or check that it is current.

Tests that stand for a row carry the marker ``protocol(what, how, where, does)``; see
tests/conftest.py. A row is there when all of its tests have passed. What only a GPU has shown
stays where there is none.

Usage: ``python tools/protocols.py [--check]``, from the root of the repository.
"""

import argparse
import difflib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path("docs/reference/buffers.md")
BEGIN, END = '<!-- Made by "make protocols" of the tests that pass. -->', "<!-- Until here. -->"
TESTS = (
    "tests/memory/test_protocols.py",
    "tests/memory/test_engines.py",
    "tests/memory/test_cuda.py::test_on_a_double_of_the_driver",
)
GPU_TESTS = ("tests/gpu/test_engines.py",)
ON_GPU = "GPU"

Row = tuple[str, str, str, str]


def passed() -> list[Row]:
    """Run the tests; return the rows of which every test has passed, in their order."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as file:
        for tests, may_skip in ((TESTS, False), (GPU_TESTS, True)):
            run = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", *tests],
                env=os.environ | {"PROTOCOLS": file.name},
                check=False,
                capture_output=True,
                text=True,
                timeout=900,
            )
            if run.returncode or (not may_skip and " skipped" in run.stdout):
                sys.exit(f"not all tests that make the table ran:\n{run.stdout}{run.stderr}")
        found: dict[Row, bool] = {}
        for line in file:
            *row, good = json.loads(line)
            key = (row[0], row[1], row[2], row[3])
            found[key] = found.get(key, True) and good
    return [row for row, good in found.items() if good]


def table(rows: list[Row]) -> str:
    """Return the rows in Markdown."""
    lines = ["| what | over | where | what was done |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    check = parser.parse_args().check
    text = PAGE.read_text()
    head, rest = text.split(BEGIN)
    old, tail = rest.split(END)
    if "CUDA_DOUBLE" in os.environ:
        sys.exit("this is a rehearsal, which is no GPU")
    rows = passed()
    for line in old.splitlines():
        what, how, where, does = (*line.strip("| ").split(" | "), "", "", "")[:4]
        if where == ON_GPU and (what, how, where, does) not in rows:
            rows.append((what, how, where, does))
    new = f"{head}{BEGIN}\n\n{table(rows)}\n\n{END}{tail}"
    if new == text:
        return 0
    if check:
        lines = difflib.unified_diff(
            text.splitlines(), new.splitlines(), str(PAGE), "what passes", lineterm=""
        )
        print("\n".join(lines))
        return 1
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())

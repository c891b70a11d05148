"""The figures of README.md are those that `make bench` has written."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "bench"))
from harness.targets import us  # noqa: E402, after the path

SUBJECTS = ("nixl_connect", "dynamo", "nixl")
# The rows of the table: what they are called, and where `docs/benchmarks.json` has them.
ROWS = {
    "8 bytes, all of it: offer, message, read, both told": ("fresh", "cycle"),
    "8 bytes, prepared once and posted again": ("prepared", "repost"),
    "256 MiB, read": ("size 268435456", "read"),
    "512 operations of 8 bytes at once, for each": ("burst 512", "operation"),
    "100,000 descriptors in one read": ("descriptors", "read"),
    "processor time of a side that waits for one operation": ("idle 1", "passive"),
}


def test_the_table_of_how_fast():
    results = json.loads((ROOT / "docs" / "benchmarks.json").read_text())["results"]
    rows = []
    for label, (case, figure) in ROWS.items():
        cells = []
        for subject in SUBJECTS:
            measured = results[case].get(subject)
            median = None if measured is None else measured["figures"][figure]["median"]
            if median is None:
                cells.append("")
            else:
                cells.append(f"{median:.1%} of a core" if "idle" in case else us(median))
        rows.append(f"| {label} | {' | '.join(cells)} |")
    text = (ROOT / "README.md").read_text()
    assert [row for row in rows if row not in text] == [], "\n".join(rows)


def test_how_many_targets_are_missed():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    table = page.partition("| figure |")[2].partition("\n\n")[0]
    missed, met = table.count("**missed**"), len(re.findall(r"\| met \|", table))
    numbers = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")
    text = (ROOT / "README.md").read_text().replace("\n", " ")
    assert f"{numbers[missed]} of its {missed + met} targets" in text

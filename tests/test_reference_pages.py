"""Pages that have to say what something else says: the reference, and figures of the benchmarks."""

import ast
import json
import re
from pathlib import Path

import pytest

import nixl_connect
from nixl_connect import monitor

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
API = DOCS / "reference" / "api.md"
CHOOSING = DOCS / "explanation" / "choosing.md"
HOWTO = DOCS / "howto"

SUBJECTS = ("nixl", "dynamo", "ucxx", "zmq", "shm")
# The rows of the table of ratios: what they are called, and where `docs/benchmarks.json` has them.
ROWS = {
    "8 bytes, fresh buffers: offer, message, read, both told": ("fresh", "cycle"),
    "4 KiB, buffers that were used before, the same": ("size 4096", "cycle"),
    "256 KiB": ("size 262144", "cycle"),
    "16 MiB": ("size 16777216", "cycle"),
    "256 MiB": ("size 268435456", "cycle"),
    "512 operations at once, for each": ("burst 512", "operation"),
    "8 passive sides at once, for each round": ("fan", "operation"),
    "10,000 descriptors of 16 KiB, offer to told": ("10000 of 16 KiB", "cycle"),
    "100,000 descriptors in one read": ("descriptors", "read"),
    "8 bytes, prepared once and posted again": ("prepared", "repost"),
    "longest stall of the reader's event loop, 256 MiB": ("stall", "active"),
    "processor time of a side that waits for one operation": ("idle 1", "passive"),
}


def documented() -> set[str]:
    """Return the objects for which there is a directive of autodoc, the module's members too."""
    names = set()
    for kind, name in re.findall(r"^\.\. auto(\w+):: ([\w.]+)", API.read_text(), re.MULTILINE):
        if kind != "module":
            names.add(name)
            continue
        source = ROOT / Path(*name.split(".")).with_suffix(".py")
        names |= {
            f"nixl_connect.{node.name}"
            for node in ast.parse(source.read_text()).body
            if isinstance(node, ast.ClassDef)
        }
    return names


@pytest.mark.parametrize("name", [n for n in nixl_connect.__all__ if not n.startswith("_")])
def test_every_public_name_is_in_the_reference(name):
    assert f"nixl_connect.{name}" in documented()


def test_the_reference_has_no_other_names():
    others = {f"nixl_connect.monitor.{name}" for name in monitor.__all__}
    others.add("nixl_connect.prometheus.Collector")
    assert documented() - others <= {f"nixl_connect.{name}" for name in nixl_connect.__all__}


def test_nothing_is_documented_twice():
    text = API.read_text()
    names = re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE)
    assert len(names) == len(set(names))


def ratios() -> list[str]:
    """Return the rows of the table, of the medians that `make bench` has written."""
    results = json.loads((DOCS / "benchmarks.json").read_text())["results"]
    rows = []
    for label, (case, figure) in ROWS.items():
        cells = []
        own = results[case]["nixl_connect"]["figures"][figure]["median"]
        for subject in SUBJECTS:
            measured = results[case].get(subject)
            if measured is None:
                cells.append("")
                continue
            cells.append(rounded(measured["figures"][figure]["median"] / own))
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return rows


def rounded(ratio: float) -> str:
    """Return a ratio with two digits, or as a fraction with one or two if it is small."""
    if ratio < 0.1:
        return f"1/{float(f'{1 / ratio:.2g}'):g}"
    return f"{float(f'{ratio:.2g}'):g}"


def test_ratios_of_the_comparison():
    text = CHOOSING.read_text()
    rows = ratios()
    missing = [row for row in rows if row not in text]
    assert not missing, "docs/explanation/choosing.md should have:\n" + "\n".join(rows)


def quotes() -> dict[str, list[str]]:
    """Return what each how-to quotes from the benchmarks, with the medians that they have now."""
    results = json.loads((DOCS / "benchmarks.json").read_text())["results"]

    def median(case: str, figure: str, subject: str = "nixl_connect") -> float:
        return results[case][subject]["figures"][figure]["median"]

    pending = median("waiting 4096", "cycle") / median("waiting 64", "cycle")
    burst = f"{median('burst 512', 'operation') * 1e6:.0f} us"
    descriptor = f"{median('descriptors', 'read') / 100_000 * 1e6:.0f} us"
    block = f"{median('paged', 'read') / 100_000 * 1e6:.1f} us"
    offer = f"{median('paged', 'create') * 1e3:.1f} ms"
    blocks, rows = median("paged", "read"), median("paged", "read", "nixl")
    theirs = f"{median('descriptors', 'read', 'dynamo'):.0f} s"
    return {
        "many-peers.md": [
            f"with 4,096 pending, another one takes {pending:.2f} times as long as with 64",
            f"512 operations at once took {burst} each",
            f"100,000 descriptors in one operation took {descriptor} each",
        ],
        "paged-caches.md": [
            f"took {offer} to offer and {blocks * 1e3:.0f} ms to read",
            f"NIXL's own Python API took {rows * 1e3:.0f} ms for the rows",
            f"this library took {blocks / rows:.2f} times as long",
            f"`dynamo.nixl_connect` took {theirs} for as many",
        ],
        "tuning.md": [
            f"An 8-byte read over fresh buffers took {median('fresh', 'read') * 1e6:.0f} us",
            f"with `transfer_blocking`, took {median('prepared', 'repost') * 1e6:.1f} us",
            f"| 512 operations at once | {burst} |",
            f"| 100,000 descriptors in one operation | {descriptor} |",
            f"| 100,000 [Blocks](paged-caches.md) in one operation | {block} |",
            f"read and notification took {median('fresh', 'cycle') * 1e6:.0f} us",
            f"JSON takes {median('alone', 'JSON, 1') * 1e6:.0f} us for one descriptor",
            f"and {median('alone', 'JSON, 10000') * 1e3:.0f} ms for 10,000",
            f"At 100 ms it took {median('idle 0', 'passive'):.2%} of a processor",
        ],
    }


@pytest.mark.parametrize("page", quotes())
def test_figures_that_a_howto_quotes(page):
    text = " ".join((HOWTO / page).read_text().split())
    missing = [quote for quote in quotes()[page] if quote not in text]
    assert not missing, f"docs/howto/{page} should have:\n" + "\n".join(missing)


def test_every_howto_that_quotes_the_benchmarks_is_checked():
    quoting = {page.name for page in HOWTO.glob("*.md") if "(../benchmarks.md" in page.read_text()}
    assert quoting == set(quotes())


def test_every_message_is_explained():
    text = (DOCS / "explanation" / "transfer.md").read_text()
    native = ROOT / "nixl_connect" / "_native"
    sources = "".join((native / name).read_text() for name in ("transfer.pyx", "record.pyx"))
    messages = re.findall(r'^(?:\w+_PREFIX|PROBE) = b"([^"]+)"$', sources, re.MULTILINE)
    assert len(messages) == 4
    assert [message for message in messages if f"`{message}`" not in text] == []

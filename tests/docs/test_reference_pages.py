"""Pages that have to say what something else says: the reference, and figures of the benchmarks."""

import ast
import re
import sys
from pathlib import Path

import pytest

import nixl_connect
from nixl_connect import arrays, monitor

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench"))
from harness import quotes  # noqa: E402, after the path

DOCS = ROOT / "docs"
API = DOCS / "reference" / "api.md"
HOWTO = DOCS / "howto"
QUOTES = quotes.Results(DOCS).quotes()


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
    others |= {f"nixl_connect.arrays.{name}" for name in arrays.__all__}
    others |= {"nixl_connect.ray.register", "nixl_connect.ray.target"}
    others.add("nixl_connect.prometheus.Collector")
    assert documented() - others <= {f"nixl_connect.{name}" for name in nixl_connect.__all__}


@pytest.mark.parametrize("name", arrays.__all__)
def test_what_moves_arrays_is_in_the_reference(name):
    assert f"nixl_connect.arrays.{name}" in documented()


def test_nothing_is_documented_twice():
    text = API.read_text()
    names = re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("page", QUOTES)
def test_figures_that_a_page_quotes(page):
    text = (ROOT / page).read_text()
    assert text == quotes.refreshed(text, QUOTES[page]), "make quotes writes them"


def test_every_howto_that_quotes_the_benchmarks_is_checked():
    quoting = {page.name for page in HOWTO.glob("*.md") if "(../benchmarks.md" in page.read_text()}
    assert quoting == {Path(page).name for page in QUOTES if "/howto/" in page}


def test_a_quote_is_found_over_lines_and_once():
    quote = quotes.Quote("with {} pending, {} us", ("4", "5"))
    assert quote.refreshed("so, with 3,000\npending, 7.5 us.") == "so, with 4\npending, 5 us."
    with pytest.raises(LookupError, match="0 times"):
        quote.refreshed("with nothing")
    with pytest.raises(LookupError, match="2 times"):
        quote.refreshed("with 1 pending, 2 us. with 1 pending, 2 us.")


def test_every_message_is_explained():
    text = (DOCS / "explanation" / "transfer.md").read_text()
    native = ROOT / "nixl_connect" / "_native"
    sources = "".join((native / name).read_text() for name in ("transfer.pyx", "record.pyx"))
    messages = re.findall(r'^(?:\w+_PREFIX|PROBE) = b"([^"]+)"$', sources, re.MULTILINE)
    assert len(messages) == 5
    assert [message for message in messages if f"`{message}`" not in text] == []

"""Links of the repository's Markdown: files and headings exist, and hosts are ones we know.

Nothing is fetched: Sphinx's builder ``linkcheck`` does that.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "bench" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# A host that is new is to be looked at: by a person, who then adds it.
HOSTS = {
    "docs.iterative.ai",
    "docs.nvidia.com",
    "docs.python.org",
    "docs.ray.io",
    "github.com",
    "keepachangelog.com",
    "no-color.org",
    "openucx.readthedocs.io",
    "pypi.org",
    "semver.org",
}
# Links to these are for readers of an example, who have a server there.
OWN = {"localhost", "127.0.0.1", "10.0.0.1"}

_FENCE = re.compile(r"^(`{3,})[^`\n]*\n.*?^\1`*$\n?", re.DOTALL | re.MULTILINE)
_IMAGE = re.compile(r"^```\{(?:image|figure)\} (\S+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^```\{(?:literal)?include\} (\S+)$", re.MULTILINE)
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
_MARKUP = re.compile(r"<[a-z]+ [^>]*\b(?:href|src|srcset)=\"([^\"]+)\"")
_BARE = re.compile(r"https?://[^\s)>\"'`]+")
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$", re.MULTILINE)
# What `myst_heading_anchors` gives an anchor to.
_DEEPEST = 3


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return _FENCE.sub("\n", page.read_text())


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links and pictures."""
    text = _CODE.sub("", prose(page))
    for pattern in (_LINK, _REFERENCE, _MARKUP):
        yield from pattern.findall(text)
    yield from _IMAGE.findall(page.read_text())
    yield from _INCLUDE.findall(page.read_text())


def slug(heading: str) -> str:
    """Return the anchor that GitHub and MyST make of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: of headings that are alike, the later ones have numbers."""
    seen: Counter[str] = Counter()
    found = set()
    for marks, heading in _HEADING.findall(prose(page)):
        name = slug(heading)
        number = seen[name]
        seen[name] += 1
        if len(marks) <= _DEEPEST:
            found.add(f"{name}-{number}" if number else name)
    return found


def problem(page: Path, target: str) -> str | None:
    """Return what is wrong with a link, or None."""
    if re.match(r"[a-z]+:", target):
        return None  # for the test of hosts
    path, _, anchor = target.partition("#")
    other = (page.parent / path).resolve() if path else page
    if not other.is_relative_to(ROOT):
        return f"{target}: leaves the repository"
    if not other.exists():
        return f"{target}: no such file"
    if anchor and (other.suffix != ".md" or anchor not in anchors(other)):
        return f"{target}: no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links(page):
    assert [text for text in (problem(page, target) for target in links(page)) if text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_the_web(page):
    wrong = []
    for url in {*_BARE.findall(prose(page)), *(x for x in links(page) if ":" in x)}:
        parts = urlsplit(url.rstrip(".,;"))
        if parts.hostname in OWN:
            continue
        if parts.scheme != "https" or parts.hostname not in HOSTS or parts.username or parts.port:
            wrong.append(url)
    assert wrong == []


def test_every_page_of_the_documentation_is_reached():
    start = ROOT / "docs" / "index.md"
    seen: set[Path] = set()
    left = [start, ROOT / "README.md"]
    while left:
        page = left.pop()
        seen.add(page)
        targets = {*links(page), *_contents(page)}
        for target in targets:
            other = (page.parent / target.partition("#")[0]).resolve()
            if other.suffix == ".md" and other.is_file() and other not in seen:
                left.append(other)
    assert sorted(page for page in PAGES if page.is_relative_to(ROOT / "docs")) == sorted(
        page for page in seen if page.is_relative_to(ROOT / "docs")
    )


def _contents(page: Path) -> Iterator[str]:
    """Yield what a page's tables of contents name."""
    for body in re.findall(
        r"^```\{toctree\}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
    ):
        for line in body.splitlines():
            if line and not line.startswith(":") and "*" not in line:
                name = re.sub(r".*<(.+)>", r"\1", line).removesuffix(".md")
                yield f"{name}.md"


# The tests of the tests: what has to be found.


def test_slugs():
    assert slug("What UCX needs") == "what-ucx-needs"
    assert slug("The `nixl_connect` command, again") == "the-nixl_connect-command-again"
    assert slug("1. NIXL's C API, through dlopen") == "1-nixls-c-api-through-dlopen"


def test_what_is_wrong_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(problem.__globals__, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n## Twice\n\n## Twice\n\n```sh\n# no heading\n[no](link.md)\n```\n"
        "[a](#twice-1) [b](#twice-2) [c](gone.md) [d](page.md#no-heading) `[e](code.md)`\n"
        '[f](../outside.md)\n[g]: other.md\n<img alt="h" src="drawing.svg">\n'
    )
    assert [problem(page, target) for target in links(page)] == [
        None,
        "#twice-2: no such heading",
        "gone.md: no such file",
        "page.md#no-heading: no such heading",
        "../outside.md: leaves the repository",
        "other.md: no such file",
        "drawing.svg: no such file",
    ]

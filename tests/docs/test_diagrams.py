"""The drawings of the documentation: well-formed, whole, described, and shown by a page."""

import itertools
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.append(str(DOCS.parent / "tools"))
import themes  # noqa: E402

DRAWINGS = sorted(DOCS.rglob("*.svg"))
BY_HAND = sorted((DOCS / "explanation").glob("*.svg"))

_SVG = "{http://www.w3.org/2000/svg}"
# Of a usual sans serif font, in units of its size: a wide guess for one letter, and what is above
# and below the line.
_WIDTH, _ASCENT, _DESCENT = 0.56, 0.75, 0.2
_DRAWN = {
    "circle",
    "defs",
    "g",
    "line",
    "marker",
    "path",
    "polyline",
    "rect",
    "style",
    "svg",
    "text",
    "title",
}
# How pages show a drawing.
_SHOWN = (
    re.compile(r"^```\{image\} (?P<path>\S+)\n:alt: (?P<alt>.+)$", re.MULTILINE),
    re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>[^)]+)\)"),
)


class Box(NamedTuple):
    """What a text takes of a drawing, about."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether two have a point in common."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def root_of(path: Path) -> ElementTree.Element:
    """Return the root element of a drawing."""
    return ElementTree.fromstring(path.read_text())


def size_of(root: ElementTree.Element) -> tuple[float, float]:
    """Return width and height of what is seen."""
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert (left, top) == (0, 0)
    return width, height


def texts(element: ElementTree.Element, size: float = 16, anchor: str = "start") -> Iterator[Box]:
    """Yield the texts below an element, with what they inherit."""
    size = float(element.get("font-size", size))
    anchor = element.get("text-anchor", anchor)
    if element.tag == f"{_SVG}text":
        text = "".join(element.itertext()).strip()
        x, y = float(element.attrib["x"]), float(element.attrib["y"])
        width = len(text) * size * _WIDTH
        left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
        yield Box(text, left, y - size * _ASCENT, left + width, y + size * _DESCENT)
    for child in element:
        yield from texts(child, size, anchor)


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_page_shows_it_and_says_what_it_is(path):
    told = [
        match["alt"]
        for page in DOCS.rglob("*.md")
        for pattern in _SHOWN
        for match in pattern.finditer(page.read_text())
        if (page.parent / match["path"]).resolve() == path
    ]
    assert told
    assert all(len(alt) > 20 for alt in told)


@pytest.mark.parametrize("path", BY_HAND, ids=lambda path: path.name)
def test_it_needs_nothing_else(path):
    text = path.read_text()
    assert not re.search(r"<script|<image|<foreignObject|@import|\bon\w+=", text)
    # The name of a namespace is no link.
    assert not re.search(r"(?<!xmlns=\")https?://", text)


@pytest.mark.parametrize("path", BY_HAND, ids=lambda path: path.name)
def test_it_has_a_title_and_a_white_ground(path):
    root = root_of(path)
    width, height = size_of(root)
    assert root.get("role") == "img"
    title = root.find(f"{_SVG}title")
    assert title is not None
    assert title.text
    ground = root.find(f"{_SVG}rect")
    assert ground is not None
    assert ground.get("fill") == "#fff"
    assert (float(ground.attrib["width"]), float(ground.attrib["height"])) == (width, height)
    assert {element.tag.removeprefix(_SVG) for element in root.iter()} <= _DRAWN


@pytest.mark.parametrize("path", BY_HAND, ids=lambda path: path.name)
def test_it_follows_a_dark_theme(path):
    drawing = path.read_text()
    assert themes.themed(drawing) == drawing
    plain = re.sub(r"<style>.*?</style>", "", drawing, flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-f]{3,8}\b", plain)) <= themes.DARK.keys()


def luminance(colour: str) -> float:
    """Return how bright a colour is, by WCAG 2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, by WCAG 2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


GROUNDS = [colour for colour in themes.DARK if luminance(colour) > 0.8]
TEXTS = ["#111", "#222", "#444", "#555", "#666"]
# On no box.
COLOURED = ["#2e7d32", "#a33"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_can_be_read(theme):
    """Of what is written, 4.5 of contrast on any ground that there is."""
    shown = (lambda colour: colour) if theme == "light" else themes.DARK.__getitem__
    assert len(GROUNDS) == 7
    assert [
        (text, ground)
        for text in TEXTS + COLOURED
        for ground in (GROUNDS if text in TEXTS else ["#fff"])
        if contrast(shown(text), shown(ground)) < 4.5
    ] == []


@pytest.mark.parametrize("path", BY_HAND, ids=lambda path: path.name)
def test_texts_are_within_it_and_apart(path):
    root = root_of(path)
    width, height = size_of(root)
    boxes = list(texts(root))
    outside = [
        box
        for box in boxes
        if box.left < 0 or box.top < 0 or box.right > width or box.bottom > height
    ]
    assert outside == []
    assert [(a.text, b.text) for a, b in itertools.combinations(boxes, 2) if a.meets(b)] == []


@pytest.mark.parametrize("path", BY_HAND, ids=lambda path: path.name)
def test_shapes_are_within_it(path):
    root = root_of(path)
    width, height = size_of(root)
    for element in root.iter(f"{_SVG}rect"):
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        assert 0 <= x <= x + float(element.attrib["width"]) <= width
        assert 0 <= y <= y + float(element.attrib["height"]) <= height


def test_what_is_wrong_is_found():
    drawing = ElementTree.fromstring(
        '<svg xmlns="http://www.w3.org/2000/svg" font-size="10" text-anchor="middle">'
        '<g text-anchor="start"><text x="0" y="20">to the right</text></g>'
        '<text x="30" y="22">over it</text><text x="0" y="90">cut</text></svg>'
    )
    first, second, third = texts(drawing)
    assert first.meets(second)
    assert not first.meets(third)
    assert first.left == 0
    assert third.left < 0

"""Who imports whom, and on which floors the packages stand: ``tools/house.py`` draws it.

Imports within functions, for type checkers alone, and in Cython (``cimport``) count like the rest.
A room is a package or a module directly in ``nixl_connect``; its floor is one above the highest of
the rooms that it imports. Writes ``docs/explanation/house.svg``.
"""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import themes

ROOT = Path(__file__).parents[1]
PACKAGE = "nixl_connect"
DRAWING = ROOT / "docs" / "explanation" / "house.svg"
COMMAND = "cli"
"""The room of the command line, which stands on top: nothing but `__main__` is above it."""

_OF_C = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(?:\(([^)]*)\)|([^\n(]*))"
    r"|c?import[ \t]+([\w., \t]+))",
    re.MULTILINE,
)
# Of the drawing, in pixels.
_WIDE, _HIGH, _GAP, _LETTER, _MARGIN, _LEFT = 760, 34, 14, 8.2, 20, 40


def files() -> dict[str, list[Path]]:
    """Return the sources of each module: those in Cython have two."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*")):
        if path.suffix in (".py", ".pyx", ".pxd"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            found.setdefault(name, []).append(path)
    return found


def named(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what a file imports: the module, and the name of what it takes from there.

    Raises
    ------
    ValueError
        It has a relative import, which says less to a reader.
    """
    text = path.read_text()
    if path.suffix != ".py":
        for module, within, plain, whole in _OF_C.findall(re.sub(r"#.*", "", text)):
            if module.startswith("."):
                raise ValueError(f"{path}: a relative import of {module}")
            yield from ((module, name) for name in (within or plain).replace(",", " ").split())
            yield from ((name, "") for name in whole.replace(",", " ").split())
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError(f"{path}, line {node.lineno}: a relative import")
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def imports() -> dict[str, set[str]]:
    """Return which modules of the package each one imports."""
    modules = files()
    found = {}
    for module, paths in modules.items():
        used = {
            f"{origin}.{name}" if f"{origin}.{name}" in modules else origin
            for path in paths
            for origin, name in named(path)
        }
        found[module] = {name for name in used if name in modules} - {module}
    return found


def room(module: str) -> str:
    """Return in which room a module is."""
    return module.partition(".")[2].partition(".")[0] or PACKAGE


def rooms() -> dict[str, set[str]]:
    """Return which rooms each one imports from."""
    found: dict[str, set[str]] = {}
    for module, used in imports().items():
        own = room(module)
        found.setdefault(own, set()).update(room(name) for name in used if room(name) != own)
    return found


def floors() -> list[list[str]]:
    """Return the rooms of each floor, the lowest first.

    Raises
    ------
    graphlib.CycleError
        Rooms import each other.
    """
    below = rooms()
    heights: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(below).static_order():
        heights[name] = 1 + max((heights[other] for other in below[name]), default=-1)
    return [
        sorted(name for name in heights if heights[name] == height)
        for height in range(max(heights.values()) + 1)
    ]


def drawing() -> str:
    """Return the floors as an SVG, the highest at the top."""
    house = floors()
    high = _MARGIN * 2 + len(house) * (_HIGH + _GAP) - _GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {high}" role="img"',
        ' font-family="sans-serif" font-size="14" text-anchor="middle" fill="#222">',
        "<title>The rooms of nixl_connect, floor by floor</title>",
        themes.style(),
        f'<rect width="{_WIDE}" height="{high}" fill="#fff"/>',
    ]
    for height, names in enumerate(reversed(house)):
        y = _MARGIN + height * (_HIGH + _GAP)
        floor = len(house) - 1 - height
        lines.append(f'<text x="{_MARGIN}" y="{y + 22}" font-size="12" fill="#666">{floor}</text>')
        widths = [len(name) * _LETTER + 24 for name in names]
        x = _LEFT + (_WIDE - _LEFT - sum(widths) - _GAP * (len(names) - 1)) / 2
        for name, width in zip(names, widths, strict=True):
            package = (ROOT / PACKAGE / name).is_dir()
            lines.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_HIGH}" rx="4" '
                f'fill="{"#e3eefa" if package else "#f4f4f4"}" stroke="#888"/>'
            )
            lines.append(f'<text x="{x + width / 2:.1f}" y="{y + 22}">{name}</text>')
            x += width + _GAP
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    DRAWING.write_text(drawing())

"""Draws how the statuses of both sides of an operation follow each other.

    python -m life.drawing

Which arrows there are, and what stands beside them, comes from the model of an operation's life:
each is a change that a rule of its table makes. What is drawn is
``docs/explanation/lifecycle.svg``.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from life import explorer, table
from life.states import (
    CANCELLED,
    COMPLETE,
    ERRORED,
    IN_PROGRESS,
    INITIALIZED,
    UNINITIALIZED,
    Status,
)

sys.path.append(str(Path(__file__).parents[2] / "tools"))
import themes

DRAWING = themes.DRAWINGS / "lifecycle.svg"
WIDTH, HALF, LINE = 980, 290, 17

# What a rule is for readers.
SAYS = {
    "begin": "begun",
    "post": "posted",
    "complete": "all bytes moved",
    "cancel_offer": "given up",
    "cancel_move": "given up",
    "close_offer": "connector closed",
    "close_move": "connector closed",
    "offer_deadline": "deadline passed",
    "move_deadline": "deadline passed",
    "finish": "finished by its owner",
    "deliver": "told by its peer",
    "double": "",  # the same, twice
    "miss_mover": "its peer has gone",
    "miss_offer": "its peer has gone",
    "failed": "failed by NIXL",
}
BADLY = {("complete", ERRORED): "peer not told"}
# Where a status stands, on each side: the middle of its box, from the top of the side's half.
PLACES = {
    UNINITIALIZED: (100, 80),
    INITIALIZED: (330, 80),
    IN_PROGRESS: (560, 80),
    COMPLETE: (870, 80),
    CANCELLED: (200, 235),
    ERRORED: (660, 235),
}
BOX = (150, 46)
COLOURS = {
    COMPLETE: ("#e8f5e9", "#2e7d32"),
    CANCELLED: ("#fbf3e4", "#8a6d1a"),
    ERRORED: ("#fbeaea", "#a33"),
}
# How an arrow goes, and where its text is: the first line, and how it is aligned.
ARROWS = {
    ("passive", INITIALIZED, COMPLETE): ((405, 80, 793, 80), (600, 52, "middle")),
    ("passive", INITIALIZED, CANCELLED): ((300, 103, 215, 210), (232, 135, "end")),
    ("passive", INITIALIZED, ERRORED): ((385, 103, 583, 215), (505, 120, "start")),
    ("active", UNINITIALIZED, INITIALIZED): ((175, 80, 253, 80), (214, 70, "middle")),
    ("active", INITIALIZED, IN_PROGRESS): ((405, 80, 483, 80), (444, 70, "middle")),
    ("active", INITIALIZED, CANCELLED): ((300, 103, 215, 210), (232, 135, "end")),
    ("active", IN_PROGRESS, COMPLETE): ((635, 80, 793, 80), (714, 70, "middle")),
    ("active", IN_PROGRESS, CANCELLED): ((500, 103, 277, 215), (374, 147, "end")),
    ("active", IN_PROGRESS, ERRORED): ((610, 103, 650, 210), (650, 138, "start")),
}
TITLES = {"passive": "Passive: offers memory", "active": "Active: reads or writes"}


def changes() -> dict[tuple[str, Status, Status], list[str]]:
    """Return what changes a status, in words: by side, from and to."""
    found = defaultdict(set)
    for transfers in (1, 0):
        seen = explorer.explore(table.first(transfers, written=True, moves=1), 1)
        for side, rule, old, new in seen.edges:
            found[side, old, new].add(BADLY.get((rule, new), SAYS[rule]))
    return {change: sorted(filter(None, says)) for change, says in found.items()}


def drawing() -> str:
    """Return the drawing, as an SVG."""
    made = changes()
    height = HALF * len(TITLES)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        '     font-family="system-ui, sans-serif" font-size="14" text-anchor="middle">',
        "  <title>States of an operation</title>",
        themes.style(),
        '  <defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8"',
        '    markerHeight="8" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="#444"/></marker>',
        "  </defs>",
        f'  <rect width="{WIDTH}" height="{height}" rx="8" fill="#fff"/>',
    ]
    for i, (side, title) in enumerate(TITLES.items()):
        top = i * HALF
        there = {status for name, *both in made if name == side for status in both}
        lines.append(
            f'  <text x="24" y="{top + 30}" text-anchor="start" font-size="16" fill="#111">'
            f"{title}</text>"
        )
        lines += [_box(status, top) for status in sorted(there)]
        for change in sorted(made):
            if change[0] == side:
                lines += _arrow(*ARROWS[change], made[change], top)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _box(status: Status, top: int) -> str:
    x, y = PLACES[status]
    width, high = BOX
    ground, edge = COLOURS.get(status, ("#eef3fa", "#446"))
    thick = 2 if status in COLOURS else 1
    return (
        f'  <rect x="{x - width // 2}" y="{top + y - high // 2}" width="{width}" height="{high}" '
        f'rx="8" fill="{ground}" stroke="{edge}" stroke-width="{thick}"/>'
        f'<text x="{x}" y="{top + y + 5}" fill="#111">{status.name}</text>'
    )


def _arrow(
    line: tuple[int, int, int, int], text: tuple[int, int, str], says: list[str], top: int
) -> list[str]:
    (x1, y1, x2, y2), (x, y, anchor) = line, text
    path = (
        f'  <path d="M{x1} {top + y1} L{x2} {top + y2}" fill="none" stroke="#444" '
        'stroke-width="1.6" marker-end="url(#tip)"/>'
    )
    style = f'text-anchor="{anchor}" font-size="13" fill="#444"'
    return [
        path,
        *(
            f'  <text x="{x}" y="{top + y + LINE * i}" {style}>{each}</text>'
            for i, each in enumerate(says)
        ),
    ]


if __name__ == "__main__":
    DRAWING.write_text(drawing())

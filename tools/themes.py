"""Has drawings follow a dark theme: writes the same style into each of ``docs/explanation/*.svg``.

    python tools/themes.py [--check]

Colours stand in the drawings as attributes, which are what a light theme shows; what a dark theme
shows instead, for those who read in one, is here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DRAWINGS = Path(__file__).parents[1] / "docs" / "explanation"
DARK = {
    # The ground, and what is written on it.
    "#fff": "#131416",
    "#111": "#e8e8e8",
    "#222": "#e8e8e8",
    "#444": "#c4c4c4",
    "#555": "#c4c4c4",
    "#666": "#b0b0b0",
    # Lines.
    "#446": "#9db4e0",
    "#888": "#8c8c8c",
    "#999": "#8c8c8c",
    "#ccc": "#5a5a5a",
    # Grounds of boxes.
    "#e3eefa": "#1d2b40",
    "#eef3fa": "#1d2b40",
    "#f4f4f4": "#27292c",
    "#e8f5e9": "#17331c",
    "#fbeaea": "#40201f",
    "#fbf3e4": "#3a2e14",
    # Green, amber and red, as lines and as text.
    "#2e7d32": "#77c77b",
    "#8a6d1a": "#dcb850",
    "#a33": "#ec8a88",
}
_STYLE = re.compile(r"\n *<style>.*?</style>", re.DOTALL)


def style() -> str:
    """Return the element."""
    rules = "".join(
        f'[{name}="{light}"]{{{name}:{dark}}}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    )
    return f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"


def themed(drawing: str) -> str:
    """Return a drawing with the style behind its title."""
    plain = _STYLE.sub("", drawing)
    return plain.replace("</title>", f"</title>\n{style()}", 1)


def main() -> int:
    """Write it into every drawing; with --check, say which differ."""
    status = 0
    for path in sorted(DRAWINGS.glob("*.svg")):
        drawing = path.read_text()
        if themed(drawing) == drawing:
            continue
        if "--check" in sys.argv:
            print(f"{path}: python tools/themes.py")
            status = 1
        else:
            path.write_text(themed(drawing))
    return status


if __name__ == "__main__":
    sys.exit(main())

"""What the pages of the documentation show: blocks, programs, commands with their output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROGRAM = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    """A fenced block."""

    page: Path
    line: int
    """Of its first line, from 1."""
    language: str
    text: str

    @property
    def section(self) -> str:
        """The heading that it stands under."""
        above = "\n".join(self.page.read_text().split("\n")[: self.line - 1])
        return re.findall(r"^#+ (.*)", above, re.MULTILINE)[-1]

    @property
    def program(self) -> str | None:
        """Name of the file that its first line names, if it is a program of its own."""
        named = _PROGRAM.match(self.text)
        return named[1] if named and self.language == "python" else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Command(NamedTuple):
    """A command of a console block, and what is shown beneath it."""

    block: Block
    text: str
    """Without a comment, and without the ``&`` that puts it in the background."""
    output: str


def blocks(page: Path, language: str | None = None) -> Iterator[Block]:
    """Yield the fenced blocks of a page, those of one language if it is given."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        if language is None or match[1] == language:
            line = text.count("\n", 0, match.start(2)) + 1
            yield Block(page, line, match[1], match[2])


def programs() -> dict[str, str]:
    """Return the text of each program by name."""
    found: dict[str, str] = {}
    for page in PAGES:
        for block in blocks(page, "python"):
            if block.program is not None:
                assert block.program not in found, f"{block}: there are two {block.program}"
                found[block.program] = block.text
    return found


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's console blocks."""
    for block in blocks(page, "console"):
        assert block.text.startswith("$ "), f"{block} does not begin with a command"
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            first, _, output = part.partition("\n")
            command = re.sub(r"(?<=\s)#.*", "", first).rstrip(" &")
            yield Command(block, command, output)


def output_of(command: str) -> str:
    """Return what the pages show beneath a command: the same everywhere."""
    shown = {item.output for page in PAGES for item in commands(page) if item.text == command}
    assert len(shown) == 1, f"{command}: {shown}"
    return shown.pop()


def pattern(shown: str) -> re.Pattern[str]:
    """Return what matches a text in which ``…`` stands for anything."""
    return re.compile(".*".join(map(re.escape, shown.split("…"))), re.DOTALL)

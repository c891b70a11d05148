"""Figures that pages quote from the benchmarks: what each quotes, and writing them again.

A run that writes ``docs/benchmarks.json`` calls `refresh`, so that no page is left behind; a test
compares what the pages say with what `refreshed` makes of them. By hand, from what is on record:
``python -m harness.quotes``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from harness.targets import us

ROOT = Path(__file__).parents[2]
README = "README.md"
CHOOSING = "docs/explanation/choosing.md"
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# The rows of the tables: what they are called, and where `docs/benchmarks.json` has them.
_HOW_FAST = {
    "8 bytes, all of it: offer, message, read, both told": ("fresh", "cycle"),
    "8 bytes, prepared once and posted again": ("prepared", "repost"),
    "256 MiB, read": ("size 268435456", "read"),
    "512 operations of 8 bytes at once, for each": ("burst 512", "operation"),
    "100,000 descriptors in one read": ("descriptors", "read"),
    "processor time of a side that waits for one operation": ("idle 1", "passive"),
}
_RATIOS = {
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
_ONCE = {
    "`connector.open()`": ("open", "second"),
    "a read of 8 bytes, from a peer that is new": ("contact", "next"),
    "registering 256 MiB that are in use already": ("register", "again"),
}


class Quote(NamedTuple):
    """A sentence or a row of a page, with ``{}`` where figures stand."""

    text: str
    figures: tuple[str, ...]

    def refreshed(self, page: str) -> str:
        """Return a page with these figures in it.

        Raises
        ------
        LookupError
            The page does not have the sentence or row once.
        """
        cell = r"([^|\n]*?)" if self.text.startswith("|") else r"(\S+?)"
        pieces = [r"\s+".join(map(re.escape, piece.split(" "))) for piece in self.text.split("{}")]
        found = list(re.finditer(cell.join(pieces), page))
        if len(found) != 1:
            raise LookupError(f"{len(found)} times on the page: {self.text}")
        (match,) = found
        for group in range(len(self.figures), 0, -1):  # from behind, so that places stay right
            start, end = match.span(group)
            page = page[:start] + self.figures[group - 1] + page[end:]
        return page


class Results:
    """What a run has measured."""

    def __init__(self, docs: Path) -> None:
        recorded: dict[str, Any] = json.loads((docs / "benchmarks.json").read_text())
        self._results: dict[str, Any] = recorded["results"]
        self._imports: dict[str, float] = recorded["imports"]
        self._page = (docs / "benchmarks.md").read_text()

    def median(self, case: str, figure: str, subject: str = "nixl_connect") -> float | None:
        """Return a median; None for a subject that the case leaves out."""
        measured = self._results[case].get(subject)
        return None if measured is None else float(measured["figures"][figure]["median"])

    def quotes(self) -> dict[str, list[Quote]]:
        """Return what each page quotes."""
        return {
            README: [*self._how_fast(), self._missed()],
            CHOOSING: list(self._ratios()),
            **self._howtos(),
        }

    def _how_fast(self) -> Iterable[Quote]:
        for label, (case, figure) in _HOW_FAST.items():
            cells = []
            for subject in ("nixl_connect", "dynamo", "nixl"):
                median = self.median(case, figure, subject)
                if median is None:
                    cells.append("")
                else:
                    cells.append(f"{median:.1%} of a core" if "idle" in case else us(median))
            yield _row(label, cells)

    def _missed(self) -> Quote:
        table = self._page.partition("| figure |")[2].partition("\n\n")[0]
        missed, met = table.count("**missed**"), len(re.findall(r"\| met \|", table))
        number = _NUMBERS[missed] if missed < len(_NUMBERS) else str(missed)
        return Quote("misses {} of its {} targets", (number, str(missed + met)))

    def _ratios(self) -> Iterable[Quote]:
        for label, (case, figure) in _RATIOS.items():
            own = self._own(case, figure)
            others = [
                self.median(case, figure, subject)
                for subject in ("nixl", "dynamo", "ucxx", "zmq", "shm")
            ]
            yield _row(label, ["" if other is None else _ratio(other / own) for other in others])

    def _howtos(self) -> dict[str, list[Quote]]:
        own = self._own
        pending = own("waiting 4096", "cycle") / own("waiting 64", "cycle")
        burst = f"{own('burst 512', 'operation') * 1e6:.0f}"
        descriptor = f"{own('descriptors', 'read') / 100_000 * 1e6:.0f}"
        block = f"{own('paged', 'read') / 100_000 * 1e6:.1f}"
        blocks, rows = own("paged", "read"), self._own("paged", "read", "nixl")
        rest = {
            "many-peers": [
                ("with 4,096 pending, another one takes {} times as long as with 64", pending),
                ("512 operations at once took {} us each", burst),
                ("100,000 descriptors in one operation took {} us each", descriptor),
            ],
            "paged-caches": [
                ("took {} ms to offer and", f"{own('paged', 'create') * 1e3:.1f}"),
                ("ms to offer and {} ms to read", f"{blocks * 1e3:.0f}"),
                ("NIXL's own Python API took {} ms for the rows", f"{rows * 1e3:.0f}"),
                ("this library took {} times as long", blocks / rows),
                (
                    "`dynamo.nixl_connect` took {} s for as many",
                    f"{self._own('descriptors', 'read', 'dynamo'):.0f}",
                ),
            ],
            "tuning": [
                ("| `import nixl_connect` | {} |", us(self._imports["nixl_connect"])),
                ("An 8-byte read over fresh buffers took {} us", _whole("fresh", "read", own)),
                (
                    "with `transfer_blocking`, took {} us",
                    f"{own('prepared', 'repost') * 1e6:.1f}",
                ),
                ("| 512 operations at once | {} us |", burst),
                ("| 100,000 descriptors in one operation | {} us |", descriptor),
                ("| 100,000 [Blocks](paged-caches.md) in one operation | {} us |", block),
                ("read and notification took {} us", _whole("fresh", "cycle", own)),
                ("JSON takes {} us for one descriptor", _whole("alone", "JSON, 1", own)),
                ("and {} ms for 10,000", f"{own('alone', 'JSON, 10000') * 1e3:.0f}"),
                ("At 100 ms it took {} of a processor", f"{own('idle 0', 'passive'):.2%}"),
            ],
        }
        found = {
            f"docs/howto/{name}.md": [
                Quote(text, (figure if isinstance(figure, str) else f"{figure:.2f}",))
                for text, figure in quotes
            ]
            for name, quotes in rest.items()
        }
        found["docs/howto/tuning.md"] += [
            _row(label, [us(own("once", figure)) for figure in figures])
            for label, figures in _ONCE.items()
        ]
        return found

    def _own(self, case: str, figure: str, subject: str = "nixl_connect") -> float:
        median = self.median(case, figure, subject)
        if median is None:
            raise LookupError(f"no figure of {subject} for {case!r}")
        return median


def refreshed(page: str, quotes: Iterable[Quote]) -> str:
    """Return the text of a page with all that it quotes as it is on record.

    Raises
    ------
    LookupError
        The page does not have one of the sentences or rows, or twice.
    """
    for quote in quotes:
        page = quote.refreshed(page)
    return page


def refresh() -> None:
    """Write every page that quotes figures again: all of them, or none where one lacks a quote."""
    pages = Results(ROOT / "docs").quotes()
    texts = {name: refreshed((ROOT / name).read_text(), quotes) for name, quotes in pages.items()}
    for name, text in texts.items():
        (ROOT / name).write_text(text)


def _row(label: str, cells: list[str]) -> Quote:
    return Quote(f"| {label} |{' {} |' * len(cells)}", tuple(cells))


def _whole(case: str, figure: str, median: Any) -> str:
    """Return a duration in whole microseconds."""
    return f"{median(case, figure) * 1e6:.0f}"


def _ratio(ratio: float) -> str:
    """Return a ratio with two digits, or as a fraction with one or two if it is small."""
    if ratio < 0.1:
        return f"1/{float(f'{1 / ratio:.2g}'):g}"
    return f"{float(f'{ratio:.2g}'):g}"


if __name__ == "__main__":
    refresh()

"""Tables, progress bars and keys: for a terminal, and what is left of them where there is none."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

# Wide enough for every table, where there is no terminal to say how wide it is.
_WIDTH = 120


def console() -> Console:
    """Return what prints on the standard output: text as it is, be it somebody else's."""
    return Console(
        width=None if sys.stdout.isatty() else _WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def table(*headers: str, left: tuple[str, ...] = ()) -> Table:
    """Return a table without rows.

    Parameters
    ----------
    *headers : str
        Of its columns.
    left : tuple of str
        The columns with text, the first by default; others have figures.
    """
    left = left or headers[:1]
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for header in headers:
        # Where there is no room, text gives way to figures.
        is_text = header in left
        justify: Literal["left", "right"] = "left" if is_text else "right"
        overflow: Literal["ellipsis", "fold"] = "ellipsis" if is_text else "fold"
        made.add_column(header, justify=justify, no_wrap=not is_text, overflow=overflow)
    return made


@contextmanager
def progress(
    description: str, total: float, *columns: ProgressColumn
) -> Iterator[Callable[[float, str], None]]:
    """Show a progress bar on the standard error, if that is a terminal.

    Parameters
    ----------
    description : str
        What is being done at first.
    total : float
        How much there is to do.
    *columns : ProgressColumn
        What else to show between the bar and the time.

    Yields
    ------
    callable
        Takes how much has been done, and what is being done next.
    """
    screen = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        console=screen,
        disable=not screen.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda done, text: bar.update(task, advance=done, description=text)


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Have keys come one by one, if the standard input is a terminal.

    Yields
    ------
    callable
        Waits so many seconds for a key, and returns it: empty if none came, ``q`` at the end.
    """
    if not sys.stdin.isatty():

        def sleep(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield sleep
        return
    number = sys.stdin.fileno()

    def key(seconds: float) -> str:
        if not select.select([number], [], [], seconds)[0]:
            return ""
        return os.read(number, 1).decode(errors="replace") or "q"

    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield key
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)

"""What the arguments of several commands have in common: their types, and how help is laid out."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from nixl_connect.cli import text

_LONGEST = 1e9
# How shtab is told that an argument is a file.
_FILE = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "fish": "(__fish_complete_path (commandline -ct))",
    "tcsh": "f",
}


def teach(
    make: Callable[..., argparse.ArgumentParser], description: str, epilog: str, **options: str
) -> argparse.ArgumentParser:
    """Return a parser whose help is printed as it is written.

    The first line of the description is a sentence: shells show it as they complete.
    """
    return make(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **options,
    )


def complete_files(action: argparse.Action) -> None:
    """Make shells complete an argument with the names of files."""
    action.complete = _FILE  # type: ignore[attr-defined]


def size(given: str) -> int:
    """Return a number of bytes, at least 1."""
    try:
        found = text.parse_size(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found < 1:
        raise argparse.ArgumentTypeError("must be at least 1 byte")
    return found


def count(given: str) -> int:
    """Return a number of things, at least 1."""
    if not given.isdecimal() or not 0 < int(given) < 1 << 31:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {given!r}")
    return int(given)


def seconds(given: str) -> float:
    """Return a duration, above 0 and short enough for clocks: some thirty years."""
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not 0 < found <= _LONGEST:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {given!r:.80}")
    return found

"""Quantities as text, and back."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?b?)\s*", re.IGNORECASE | re.ASCII)
_LARGEST = 1 << 62


def format_bytes(count: float) -> str:
    """Return a number of bytes with a binary unit, such as ``"1.5 GiB"``."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{_digits(count)} {_UNITS[unit]}"


def format_seconds(seconds: float) -> str:
    """Return a duration with a fitting unit, such as ``"12.3 us"``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{_digits(seconds / 1e-6)} us"


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"


def parse_size(text: str) -> int:
    """Return a number of bytes: ``"4096"``, ``"64MiB"``, ``"1.5G"``; all units are powers of 1024.

    Raises
    ------
    ValueError
        Not a size, or that of no memory.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it as 4096, 64MiB or 1.5GiB")
    number, prefix, _ = match.groups()
    exponent = " kmgt".index(prefix.lower()) if prefix else 0
    size = Decimal(number) * 1024**exponent  # to 28 digits
    if size > _LARGEST:
        raise ValueError(f"{text:.20} is more than {format_bytes(_LARGEST)}, the largest size")
    return int(size)


def printable(text: str) -> str:
    """Return a name of somebody else's with nothing in it that a terminal would act on."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )

"""Arguments of callers, checked."""

from __future__ import annotations

import math
from operator import index
from typing import Any

from nixl_connect.errors import ArgumentError, ArgumentTypeError


def instance(name: str, value: object, kind: type, article: str = "a ") -> None:
    """Raise unless `value` is of a type."""
    if not isinstance(value, kind):
        raise ArgumentTypeError(
            f"{name} must be {article}{kind.__name__}, not {type(value).__name__}"
        )


def seconds(name: str, value: float, longest: float = math.inf) -> float:
    """Return `value` if it is a duration: a number of seconds, not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{name} must be a number of seconds, not {value!r}")
    if math.isnan(value) or value < 0:
        raise ArgumentError(f"{name} must not be negative, but is {value!r}")
    if value > longest:
        raise ArgumentError(f"{name} must be at most {longest:g} seconds, not {value!r}")
    return float(value)


def integer(name: str, value: Any) -> int:
    """Return `value` if it is an integer of 64 bits, of NumPy say; raise if not."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)
    except TypeError:
        raise ArgumentTypeError(f"{name} must be an int, not {type(value).__name__}") from None
    if not -(1 << 64) < number < 1 << 64:
        raise ArgumentError(f"{name} leaves 64 bits")
    return number


def count(name: str, value: int) -> int:
    """Return `value` if it is a number of things: an integer of at least 1."""
    number = integer(name, value)
    if number < 1:
        raise ArgumentError(f"{name} must be at least 1, not {number}")
    return number

"""Arguments of callers, checked."""

from __future__ import annotations

import math
from numbers import Real
from operator import index
from typing import Any

from nixl_connect.errors import ArgumentError, ArgumentTypeError


def instance(name: str, value: object, kind: type, article: str = "a ") -> None:
    """Raise unless `value` is of a type. What is abstract is called as what derives from it."""
    if not isinstance(value, kind):
        called = kind.__name__.removeprefix("Abstract")
        raise ArgumentTypeError(f"{name} must be {article}{called}, not {type(value).__name__}")


def seconds(name: str, value: Any, longest: float = math.inf) -> float:
    """Return `value`, a real number, as seconds if it is a duration: not negative.

    What is beyond a float, as a large int is, counts as infinity. Callers go on with what is
    returned, never with `value`: clocks do not add every number.
    """
    # The first two are those that come, and the third is slow.
    if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
        raise ArgumentTypeError(f"{name} must be a number of seconds, not {value!r:.80}")
    try:
        number = float(value)
    except OverflowError:
        number = -math.inf if value < 0 else math.inf
    if math.isnan(number) or number < 0:
        raise ArgumentError(f"{name} must not be negative, but is {number!r}")
    if number > longest:
        raise ArgumentError(f"{name} must be at most {longest:g} seconds, not {number!r}")
    return number


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

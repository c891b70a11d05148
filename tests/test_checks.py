"""Arguments of callers: what is taken, and where the limits are."""

import math

import numpy as np
import pytest

from nixl_connect import checks
from nixl_connect.errors import ArgumentError, ArgumentTypeError


@pytest.mark.parametrize("value", [0, 7, (1 << 64) - 1, 1 - (1 << 64), np.int32(-5), np.uint64(9)])
def test_integers_of_64_bits(value):
    assert checks.integer("count", value) == int(value)


@pytest.mark.parametrize("value", [1 << 64, -(1 << 64), 1 << 200])
def test_integers_that_leave_64_bits(value):
    with pytest.raises(ArgumentError, match="count leaves 64 bits"):
        checks.integer("count", value)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_what_is_no_integer(value):
    with pytest.raises(ArgumentTypeError, match="count must be an int"):
        checks.integer("count", value)


def test_counts():
    assert checks.count("transfers", 1) == 1
    for value in (0, -3):
        with pytest.raises(ArgumentError, match="at least 1"):
            checks.count("transfers", value)


@pytest.mark.parametrize(
    ("value", "seconds"), [(0, 0), (0.5, 0.5), (10**400, math.inf), (np.float32(2), 2), (60, 60)]
)
def test_seconds(value, seconds):
    assert checks.seconds("timeout", value) == seconds


@pytest.mark.parametrize("value", [-1, -0.1, -(10**400), math.nan])
def test_seconds_that_are_none(value):
    with pytest.raises(ArgumentError, match="must not be negative"):
        checks.seconds("timeout", value)


def test_the_most_seconds():
    assert checks.seconds("drain", 60, longest=60) == 60
    with pytest.raises(ArgumentError, match="at most 60 seconds"):
        checks.seconds("drain", 60.5, longest=60)

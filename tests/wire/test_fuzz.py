"""The corpus of the fuzzers, without a fuzzer: inputs that once led somewhere new."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "fuzz"
sys.path.insert(0, str(HERE))

from targets import TARGETS  # noqa: E402

CORPUS = sorted((HERE / "corpus").glob("*/*"))


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_has_inputs_that_are_taken_and_some_that_are_not(name):
    taken = [TARGETS[name](path.read_bytes()) for path in CORPUS if path.parent.name == name]
    assert True in taken
    assert False in taken


def test_no_input_is_without_a_target():
    assert {path.parent.name for path in CORPUS} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_in_every_target(name):
    """Any exception but the package's own fails here."""
    for path in CORPUS:
        TARGETS[name](path.read_bytes())

"""Metadata that was altered on its way, by accident or on purpose."""

import json
import os
from pathlib import Path

import pytest
from processes import run_python

# "make fuzz" sends a million.
COUNT = int(os.environ.get("HOSTILE_MESSAGES", "40000"))
MIB = 1 << 20


@pytest.mark.timeout(60 + COUNT // 500)
def test_mutated_metadata_ends_in_clear_errors():
    """No crash, no hang, no other exception, and memory and time that are bounded for each."""
    hostile = Path(__file__).parents[1] / "hostile.py"
    done = run_python(str(hostile), str(COUNT), "1", timeout=50 + COUNT // 500)
    told = json.loads(done.stdout)
    print(told)
    assert told["messages"] == COUNT
    assert told["errors"]["MetadataError"] > COUNT / 2
    assert set(told["errors"]) <= {"MetadataError", "ArgumentError", "PairingError", "StateError"}
    assert 0 < told["passed"] < COUNT / 2
    assert told["longest"] < 5
    assert told["text"] < 600  # no error repeats all that it was given
    assert told["grown"] < 64 * MIB

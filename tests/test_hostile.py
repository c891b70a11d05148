"""Metadata that was altered on its way, by accident or on purpose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# "make fuzz" sends a million.
COUNT = int(os.environ.get("HOSTILE_MESSAGES", "40000"))
MIB = 1 << 20


@pytest.mark.timeout(60 + COUNT // 500)
def test_mutated_metadata_ends_in_clear_errors():
    """No crash, no hang, no other exception, and memory and time that are bounded for each."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "hostile.py"), str(COUNT), "1"],
        capture_output=True,
        text=True,
        timeout=50 + COUNT // 500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    print(told)
    assert told["messages"] == COUNT
    assert told["errors"]["MetadataError"] > COUNT / 2
    assert set(told["errors"]) <= {"MetadataError", "ArgumentError", "PairingError", "StateError"}
    assert 0 < told["passed"] < COUNT / 2
    assert told["longest"] < 5
    assert told["text"] < 600  # no error repeats all that it was given
    assert told["grown"] < 64 * MIB

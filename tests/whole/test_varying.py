"""A short form of varying.py: fresh memory of varying sizes for every operation."""

import json
import os
from pathlib import Path

import pytest
from processes import run_python

SCRIPT = Path(__file__).parents[1] / "varying.py"
OPERATIONS = int(os.environ.get("VARYING_OPERATIONS", "1000"))


@pytest.mark.timeout(620)
@pytest.mark.parametrize("transport", ["all", "tcp"])
def test_nothing_grows(transport):
    """No descriptor, no connection, no memory, on either side."""
    count = str(OPERATIONS)
    done = run_python(str(SCRIPT), "--operations", count, timeout=600, UCX_TLS=transport)
    for one in json.loads(done.stdout):
        for side in one.values():
            assert (side["reloads"], side["registrations"]) == (0, 0)
            assert side["connections"] <= 1

"""Short forms of the soak and of the hammer: mixed traffic with faults, and everything at once."""

import json
import os
from pathlib import Path

import pytest
from processes import run_python

HERE = Path(__file__).parents[1]
SECONDS = int(os.environ.get("SOAK_SECONDS", "20"))


def run(*command, seconds):
    """Run a script; return what it tells."""
    done = run_python(*command, timeout=seconds + 150, UCX_LOG_FILE="stderr")
    print(done.stdout)
    return json.loads(done.stdout)


@pytest.mark.timeout(SECONDS + 160)
def test_mixed_traffic_with_faults():
    """Nothing is wrong, nothing hangs, nothing grows: soak.py looks."""
    told = run(str(HERE / "soak.py"), "--seconds", str(SECONDS), seconds=SECONDS)
    assert told["operations"] > 100
    assert set(told["rounds"]) == {"none", "cancel", "drop", "alter", "withdraw", "stop", "kill"}
    assert {"complete", "cancelled", "dropped", "refused"} <= set(told["outcomes"])


@pytest.mark.timeout(SECONDS + 160)
def test_threads_and_loops_do_everything_at_once():
    told = run(str(HERE / "hammer.py"), "--seconds", str(SECONDS), seconds=SECONDS)
    assert len(told) >= 17
    assert all(told.values())

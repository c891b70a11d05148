"""Metadata as a field of pydantic's models, with the oldest pydantic that is supported.

The rest of the run has the newest.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_tests

HERE = Path(__file__).parents[1]
# The first that has wheels for this Python, from 2.10 on.
OLDEST = "2.12.0" if sys.version_info >= (3, 14) else "2.10.0"


@pytest.mark.timeout(300)
def test_the_oldest(tmp_path):
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--target", str(tmp_path), f"pydantic=={OLDEST}"),
    ]
    installed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
    if installed.returncode and "CI" not in os.environ:
        pytest.skip(f"pydantic {OLDEST} cannot be installed: {installed.stderr.splitlines()[-1:]}")
    assert installed.returncode == 0, installed.stderr
    ran = run_tests(HERE / "wire" / "test_models.py", PYTHONPATH=str(tmp_path))
    assert f"pydantic {OLDEST}" in ran
    assert int(re.search(r"(\d+) passed", ran)[1]) > 40

"""What runs in a process of its own for each engine: they start threads, and mind a fork."""

import os
import sys
from pathlib import Path

import pytest

collect_ignore_glob = [] if os.environ.get("ENGINE") else ["*"]
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def nothing_left():
    """In place of the one above: engines keep threads."""

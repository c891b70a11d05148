"""Results of Ray actors, measured: ``python -m harness.rays``, which is ``make bench-ray``.

Runs ``bench/ray_actors.py`` in an environment that has Ray and torch, which this one has not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nixl_connect
from harness.environments import python_of

_PROGRAM = Path(__file__).parents[1] / "ray_actors.py"


def main() -> int:
    """Run it; return its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nixl_connect").symlink_to(Path(nixl_connect.__file__).parent)
        environment = os.environ | {"PYTHONPATH": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        return subprocess.run(
            [python_of("ray_torch"), str(_PROGRAM)], env=environment, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())

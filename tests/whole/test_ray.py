"""The transport of Ray Direct Transport, in an environment that has Ray and no torch."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from processes import environment_of, run_tests

import nixl_connect

HERE = Path(__file__).parents[1] / "arrays"


@pytest.mark.timeout(1500)
def test_arrays_between_actors(tmp_path):
    (tmp_path / "nixl_connect").symlink_to(Path(nixl_connect.__file__).parent)
    run_tests(
        HERE / "test_ray.py",
        python=environment_of("ray"),
        deadline=600,
        ENGINE="ray",
        PYTHONPATH=str(tmp_path),
        RAY_USAGE_STATS_ENABLED="0",
    )


@pytest.mark.timeout(300)
def test_the_program_of_the_documentation(program, tmp_path):
    (tmp_path / "nixl_connect").symlink_to(Path(nixl_connect.__file__).parent)
    _, written = program("ray_actors.py")
    run = subprocess.run(
        [environment_of("ray"), written],
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = re.findall(r"(by_\w+): ([\d.]+) ms for 64 MiB, sum (\d+)", run.stdout)
    assert [name for name, *_ in found] == ["by_transport", "by_object_store"]
    # The same bytes, by either way.
    assert len({total for *_, total in found}) == 1

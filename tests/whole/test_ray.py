"""The transport of Ray Direct Transport, in an environment that has Ray and no torch."""

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

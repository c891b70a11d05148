"""The declarations that are installed: another Cython engine uses the agent and descriptors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nixl_connect as nc

ENGINE = '''
"""An engine of its own, on the agent and the tables of nixl_connect."""

from libc.stdint cimport uint64_t

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.capi cimport Api
from nixl_connect._native.packing cimport Regions


def longest(Regions regions not None) -> int:
    cdef uint64_t most = 0
    cdef Py_ssize_t i
    with nogil:
        for i in range(regions.count):
            most = max(most, regions.rows[3 * i + 1])
    return most


def notified(Agent agent not None) -> int:
    """Return how many agents have sent something: by a call of NIXL's C API of its own."""
    cdef const Api* nixl = agent.nixl
    cdef void* notifications = NULL
    cdef size_t agents = 0
    cdef int rc
    with nogil:
        rc = agent.enter()
        if rc == 0:
            nixl.create_notif_map(&notifications)
            rc = nixl.get_notifs(agent.handle, notifications, NULL)
            nixl.notif_map_size(notifications, &agents)
            nixl.destroy_notif_map(notifications)
            agent.leave()
    if rc:
        raise RuntimeError(rc)
    return agents
'''
SETUP = """
from setuptools import Extension, setup
from Cython.Build import cythonize

setup(ext_modules=cythonize([Extension("engine", ["engine.pyx"])], language_level=3))
"""
PROGRAM = """
import numpy as np

import engine
import nixl_connect as nc

blocks = nc.Blocks(np.zeros(1000, np.uint8), 100, range(3))
assert engine.longest(blocks._regions) == 100
with nc.Connector() as connector:
    agent = connector._open()._engine._agent
    assert engine.notified(agent) == 0
try:
    engine.notified(agent)
except RuntimeError:
    print("closed")
"""


@pytest.mark.timeout(120)
def test_an_engine_in_cython(tmp_path):
    pytest.importorskip("Cython")
    if "LD_PRELOAD" in os.environ:
        pytest.skip("a sanitizer's library is preloaded, into compilers too")
    (tmp_path / "engine.pyx").write_text(ENGINE)
    (tmp_path / "setup.py").write_text(SETUP)
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = str(Path(nc.__file__).parents[1])
    for command in (["setup.py", "-q", "build_ext", "--inplace"], ["program.py"]):
        run = subprocess.run(
            [sys.executable, *command],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout == "closed\n"

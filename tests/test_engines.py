"""Buffers of engines as they are, each where it is installed, in a process of its own."""

import importlib.util
from pathlib import Path

import pytest
from processes import run_tests

HERE = Path(__file__).parent / "engines"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["jax", "onnxruntime", "cuda_core", "torch"])
def test_buffers(engine):
    if importlib.util.find_spec(engine.replace("_", ".")) is None:
        pytest.skip(f"{engine} is not installed")
    run_tests(HERE / f"test_{engine}.py", ENGINE=engine)

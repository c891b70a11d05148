"""Buffers of engines as they are, each where it is installed, in a process of its own."""

import importlib.util
import sys
from pathlib import Path

import pytest
from processes import run_tests

import nixl_connect

HERE = Path(__file__).parents[1] / "arrays"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["jax", "onnxruntime", "cuda_core"])
def test_buffers(engine):
    if importlib.util.find_spec(engine.replace("_", ".")) is None:
        pytest.skip(f"{engine} is not installed")
    if engine == "onnxruntime" and sys.version_info < (3, 11):
        pytest.skip("no ONNX Runtime with DLPack for Python 3.10")
    run_tests(HERE / f"test_{engine}.py", ENGINE=engine)


@pytest.mark.timeout(1200)
def test_torch(pythons, tmp_path):
    """In the environment that dynamo.nixl_connect needs torch in; this one has none."""
    (tmp_path / "nixl_connect").symlink_to(Path(nixl_connect.__file__).parent)
    run_tests(
        HERE / "test_torch.py", python=pythons["dynamo"], ENGINE="torch", PYTHONPATH=str(tmp_path)
    )

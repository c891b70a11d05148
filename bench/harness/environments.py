"""A virtual environment for each backend that needs packages of its own: made once, and kept.

They are made by venv and pip rather than uv, so that pip's own settings (indexes, certificates,
wheels on disk) hold without being handed over.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2] / "build" / "bench"
_MINUTES = 15

# Each list is one run of pip. NIXL's wheel declares torch, and Dynamo's runtime what only its other
# modules import: both come without their dependencies, which stand in the lists as far as needed.
_PACKAGES: dict[str, list[list[str]]] = {
    "dynamo": [
        ["torch==2.13.0", "pydantic>=2.10.6,<=2.13.5", "numpy"],
        # The tests of torch's tensors run there, too.
        ["msgspec", "pytest>=9", "pytest-timeout", "hypothesis"],
        ["--no-deps", "nixl-cu12==1.5.1", "ai-dynamo-runtime==1.6.1"],
    ],
    # The next release of the reference, whose names are compared, and what Dynamo builds on it.
    "dynamo_next": [
        ["torch==2.13.0", "pydantic>=2.10.6,<=2.13.5", "numpy", "msgspec"],
        ["aiohttp", "packaging", "pillow", "pyyaml", "redis", "safetensors"],
        ["--no-deps", "nixl-cu12==1.5.1", "ai-dynamo-runtime==1.7.0.dev20261026"],
        ["--no-deps", "ai-dynamo==1.7.0.dev20261026"],
    ],
    # For the tests of the transport, which torch is not to be needed for.
    "ray": [
        ["ray==2.60.0", "numpy", "jax", "msgspec", "pytest>=9", "pytest-timeout", "hypothesis"],
        ["--no-deps", "nixl-cu12==1.5.1"],
    ],
    # What is measured beside it has torch.
    "ray_torch": [
        ["ray==2.60.0", "torch==2.13.0", "numpy", "msgspec"],
        ["--no-deps", "nixl==1.5.1", "nixl-cu12==1.5.1"],
    ],
    "zmq_": [["pyzmq==27.3.0", "numpy"]],
    "safetensors_": [["safetensors==0.8.0", "numpy"]],
    "ucxx_": [["ucxx-cu12==0.52.0", "numpy"]],
}


class UnavailableError(Exception):
    """An environment cannot be made; the text is one line that says why."""


def python_of(backend: str) -> str:
    """Return the interpreter that a backend runs on, and make its environment if there is none.

    Parameters
    ----------
    backend : str
        Module of `harness.backends`. Those that need nothing more run on this interpreter.

    Raises
    ------
    UnavailableError
        pip failed, or took longer than a quarter of an hour.
    """
    packages = _PACKAGES.get(backend)
    if packages is None:
        return sys.executable
    folder = ROOT / f"env-{backend.rstrip('_')}"
    ROOT.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests in several processes want the same
        return _made(backend, folder, packages)


def _made(backend: str, folder: Path, packages: list[list[str]]) -> str:
    python, stamp = folder / "bin" / "python", folder / "stamp.json"
    # What is stamped last is whole; and other packages, or another Python, are another environment.
    content = json.dumps([sys.version, packages])
    if not (stamp.exists() and stamp.read_text() == content):
        print(f"making {folder.relative_to(ROOT.parents[1])}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        _run(backend, [sys.executable, "-m", "venv", str(folder)])
        for arguments in packages:
            _run(backend, [str(python), "-m", "pip", "install", "--quiet", *arguments])
        stamp.write_text(content)
    return str(python)


def _run(backend: str, command: list[str]) -> None:
    # Packages that the harness's own PYTHONPATH shows would count as installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_MINUTES * 60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{backend}: {command[2]} took over {_MINUTES} minutes") from None
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")]
        reason = (errors or said or ["it said nothing"])[-1]
        raise UnavailableError(f"{backend}: {command[2]}: {reason.strip()}")

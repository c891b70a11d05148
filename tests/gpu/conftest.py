"""What needs a GPU: "make test-gpu". Without one each test is skipped, and says so."""

import os
import sys
from pathlib import Path

import pytest
from processes import Peer

sys.path.insert(0, str(Path(__file__).parent))
HERE = Path(__file__).parent
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or JAX takes most of the memory

from nixl_connect.memory import cuda  # noqa: E402, after the path

missing = None if cuda.is_available() else "no GPU, or no cuda-python to reach one"


def pytest_runtest_setup(item):
    if missing:
        pytest.skip(missing)


@pytest.fixture
def nothing_left():
    """In place of the one above: CUDA keeps threads and descriptors."""


@pytest.fixture(scope="session")
def gpu():
    """The first GPU, whose context is this thread's current one."""
    from gpu_api import Gpu

    return Gpu()


@pytest.fixture
def start_peer():
    """Start peers, each with its buffers in the memory of a kind."""
    peers = []

    def start(kind="device", **options):
        peer = Peer({}, program=HERE / "gpu_peer.py")
        peers.append(peer)
        peer.do("use", kind=kind)
        peer.do("connect", options=options)
        return peer

    yield start
    for peer in peers:
        peer.end()

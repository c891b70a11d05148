"""What the next release of Dynamo builds on its nixl_connect, with this library in its place."""

import hashlib
import os
from pathlib import Path

import pytest
from processes import Lines, environment_of
from reference.clients import MEDIA, content

import nixl_connect

DEADLINE = 90
PROGRAM = Path(__file__).with_name("clients.py")
SIZES = [1, 5000, 1 << 20, (1 << 20) + 1, 3_000_000]  # within the pool's descriptors, and beyond

# The first has to make the environment.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a client over one of the two libraries."""
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "nixl_connect").symlink_to(Path(nixl_connect.__file__).parent)
    python = environment_of("dynamo_next")
    started = []

    def client(library, role):
        environment = os.environ | {"PYTHONPATH": str(folder)}
        process = Lines([python, str(PROGRAM), library, role], environment, DEADLINE)
        started.append(process)
        assert result(process.reply()) == "ready"
        return process

    yield client
    for process in started:
        process.end()


def result(reply):
    assert "error" not in reply, reply
    return reply["result"]


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [("nixl_connect", "nixl_connect"), ("nixl_connect", "dynamo"), ("dynamo", "nixl_connect")],
)
def test_keyword_arguments_of_models(start, sender, receiver):
    """All at once, again and again, from a pool that is registered in advance."""
    sends, receives = start(sender, "sender"), start(receiver, "receiver")
    expected = [
        hashlib.sha256(content(number, size)).hexdigest() for number, size in enumerate(SIZES)
    ]
    for _ in range(5):
        extra = result(sends.do("send", sizes=SIZES))
        sends.send("cleanup")
        assert result(receives.do("receive", extra=extra)) == expected
        assert result(sends.reply()) == ["DONE"] * len(SIZES)


def test_media_of_a_frontend(start):
    """From an agent that knows nothing of this library, on connectors that were warmed up."""
    frontend, loaders = start("dynamo", "frontend"), start("nixl_connect", "loaders")
    for _ in range(3):
        loaded = result(loaders.do("load", media=result(frontend.do("media"))))
        assert loaded == {kind: [True] * 3 for kind in MEDIA}

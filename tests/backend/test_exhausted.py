"""Out of file descriptors and out of memory, at every place where that can be."""

import json
import os
from pathlib import Path

import pytest
from compiling import build
from processes import run_python

HERE = Path(__file__).parents[1]


def exhausted(*arguments, **environment):
    """Run exhausted.py; return what it tells."""
    done = run_python(
        str(HERE / "exhausted.py"),
        *arguments,
        timeout=150,
        **(environment | {"UCX_LOG_FILE": "stderr"}),
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(160)
def test_out_of_file_descriptors_at_the_start():
    """Opening fails in order, UCX never comes to abort the process, and all works later."""
    told = exhausted("files")
    assert told["places"] > 10
    assert set(told["errors"]) == {"BackendError", "none"}
    assert told["errors"]["BackendError"] > 5


@pytest.mark.parametrize("left", [0, 5, 11, 23, 40])
def test_out_of_file_descriptors_when_a_peer_is_to_be_connected(left):
    told = exhausted("sockets", str(left))
    assert told["errors"] == ({"BackendError": 1} if left < 24 else {"none": 1})


def test_out_of_file_descriptors_when_a_loop_is_to_wait():
    told = exhausted("loop")
    assert told["errors"] == {"BackendError": 1}


@pytest.mark.timeout(160)
def test_out_of_threads():
    """Each thread in turn cannot be started: an error that says so, and all works later."""
    told = exhausted("threads", HOME="/")
    assert told["places"] > 5
    assert set(told["errors"]) == {"BackendError", "none"}
    assert told["errors"]["BackendError"] > 3


@pytest.mark.timeout(160)
def test_out_of_memory_in_the_native_layer(tmp_path):
    """Whichever allocation fails, once: a MemoryError or none, and no trace of it later."""
    if "LD_PRELOAD" in os.environ:
        pytest.skip("something else is preloaded, such as a sanitizer's library")
    library = build([HERE / "scripted" / "memory.c"], tmp_path / "memory.so")
    told = exhausted("memory", LD_PRELOAD=str(library))
    assert told["places"] > 20
    assert set(told["errors"]) == {"MemoryError", "none"}
    assert told["errors"]["MemoryError"] > 15

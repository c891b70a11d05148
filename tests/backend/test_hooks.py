"""UCX's hooks in the memory functions are left out where no device needs them."""

import json

import pytest
from processes import run_python

from nixl_connect.backend import hooks

# The first bytes of memory functions before and after the first agent, and what became of the
# environment.
PROGRAM = """
import ctypes, json, os, subprocess, sys
from pathlib import Path
import nixl_connect as nc
from nixl_connect.backend import hooks

if len(sys.argv) > 1:
    hooks._ROOT = Path(sys.argv[1])
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
ADDRESSES = {
    name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value
    for name in ("mmap", "munmap", "mremap", "madvise", "brk", "sbrk", "shmat", "shmdt")
}

def code():
    return {name: ctypes.string_at(address, 16) for name, address in ADDRESSES.items()}

def environment():
    told = subprocess.run(["env", "-0"], capture_output=True, check=True).stdout
    return sorted(told.split(b"\\0"))

before, inherited = code(), environment()
buffer = bytearray(b"0123456789abcdef")
with nc.Connector("hooks") as connector, nc.Connector("other") as other:
    readable = connector.create_readable_blocking(nc.Descriptor(buffer))
    into = bytearray(16)
    read = other.begin_read_blocking(readable.metadata(), nc.Descriptor(into))
    read.wait_for_completion_blocking()
    readable.wait_for_completion_blocking()
after = code()
print(json.dumps({
    "hooked": [name for name in before if before[name] != after[name]],
    "same": into == buffer and environment() == inherited,
    "set": (libc.getenv(b"UCX_MEM_MMAP_HOOK_MODE") or b"").decode(),
}))
"""


SAYS = ("UCX_MEM_MMAP_HOOK_MODE", "UCX_MEM_EVENTS", "UCX_RCACHE_ENABLE")


@pytest.fixture(autouse=True)
def nobody_says(monkeypatch):
    for name in SAYS:
        monkeypatch.delenv(name, raising=False)


def told(*arguments: str, **variables: str) -> dict:
    done = run_python("-c", PROGRAM, *arguments, timeout=60, **variables)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def machine(tmp_path):
    """Return a machine without devices."""
    (tmp_path / "sys/class/infiniband").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    return tmp_path


def test_no_device(machine):
    assert told(str(machine)) == {"hooked": [], "same": True, "set": ""}


@pytest.mark.parametrize(
    "device",
    ["sys/class/infiniband/mlx5_0", "dev/infiniband/uverbs0", "dev/nvidiactl", "dev/dri/card0"],
)
def test_a_device(machine, device):
    (machine / device).mkdir(parents=True)
    assert told(str(machine))["hooked"]


@pytest.mark.parametrize(
    ("variable", "value", "hooked"),
    [
        ("UCX_MEM_MMAP_HOOK_MODE", "bistro", True),
        ("UCX_MEM_MMAP_HOOK_MODE", "none", False),
        ("UCX_MEM_EVENTS", "y", True),
        ("UCX_MEM_EVENTS", "n", False),
        ("UCX_RCACHE_ENABLE", "y", True),
        ("UCX_RCACHE_ENABLE", "n", True),
    ],
)
def test_the_user_says(machine, variable, value, hooked):
    result = told(str(machine), **{variable: value})
    assert bool(result["hooked"]) == hooked
    assert result["same"]
    assert result["set"] == (value if variable == "UCX_MEM_MMAP_HOOK_MODE" else "")


LATER = """
import ctypes, json, sys
from pathlib import Path
import nixl_connect as nc
from nixl_connect.backend import hooks

hooks._ROOT = Path(sys.argv[1])
libc = ctypes.CDLL(None)
address = ctypes.cast(libc.mmap, ctypes.c_void_p).value
before = ctypes.string_at(address, 16)
for backends in json.loads(sys.argv[2]):
    try:
        with nc.Connector("later", backends=backends) as connector:
            connector.open_blocking()
    except nc.BackendError as error:
        assert "NOPE" in str(error)
print(json.dumps([ctypes.string_at(address, 16) != before, hooks.are_left_out()]))
"""


@pytest.mark.parametrize(
    ("tried", "hooked"),
    [
        ([["NOPE"], ["UCX"]], False),
        ([{"POSIX": {}, "UCX": {}}], False),
        ([{"UCX": {"engine_config": "RCACHE_ENABLE=y"}}], True),
    ],
    ids=["after one that fails", "after another plugin", "with a cache that the program wants"],
)
def test_other_ways_to_begin(machine, tried, hooked):
    done = run_python("-c", LATER, str(machine), json.dumps(tried), timeout=60)
    assert json.loads(done.stdout.splitlines()[-1]) == [hooked, not hooked]


def test_what_may_not_be_seen_may_be_there(machine, monkeypatch):
    monkeypatch.setattr(hooks, "_ROOT", machine)
    assert not hooks.are_needed({})
    assert hooks.are_needed({b"RCACHE_ENABLE": b"n"})

    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(hooks.os, "listdir", refuse)
    assert hooks.are_needed({})


VARIABLES = """
import ctypes, os, threading
from nixl_connect._native.process import Variable

libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
os.environ["OURS"] = "1"
with Variable(b"OURS", b"2"):
    assert libc.getenv(b"OURS") == b"1"
assert libc.getenv(b"OURS") == b"1"

# What is set, changed or removed meanwhile stays so.
os.environ["GONE"] = "1"
with Variable(b"THEIRS", b"2"):
    assert libc.getenv(b"THEIRS") == b"2"
    os.environ.update(OURS="3", LATER="4")
    del os.environ["GONE"]
assert libc.getenv(b"THEIRS") is None
assert libc.getenv(b"OURS") == b"3" and libc.getenv(b"LATER") == b"4"
assert libc.getenv(b"GONE") is None
with Variable(b"TAKEN", b"2"):
    os.environ["TAKEN"] = "3"
assert libc.getenv(b"TAKEN") == b"3"

# Threads that read the environment meanwhile find what is there.
done, wrong = threading.Event(), []

def look():
    while not done.is_set():
        if libc.getenv(b"OURS") != b"3" or libc.getenv(b"LATER") != b"4":
            wrong.append(1)

threads = [threading.Thread(target=look) for _ in range(3)]
for thread in threads:
    thread.start()
for i in range(3000):
    with Variable(b"V%d" % i, b"x"):
        pass
done.set()
for thread in threads:
    thread.join(10)
assert not wrong
print("well")
"""


def test_variables_of_a_moment():
    assert run_python("-c", VARIABLES, timeout=60).stdout == "well\n"

"""What agents need is looked for before UCX gets to it: ports, threads, shared memory."""

import functools
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import open_files, run_python, steady, until

import nixl_connect as nc
from nixl_connect._native.agent import AgentClosedError
from nixl_connect.backend import agents, ports, shared_memory, surroundings, threads

MOVE = """
import sys
import nixl_connect as nc
source, target = bytes(range(250)) * 4000, bytearray(1_000_000)
with nc.Connector() as one, nc.Connector() as other:
    with one.create_readable_blocking(nc.Descriptor(source)) as offered:
        read = other.begin_read_blocking(offered.metadata(), nc.Descriptor(target), timeout=20)
        read.wait_for_completion_blocking(20)
print(source == target)
"""


def tasks():
    """How many threads this process has."""
    return len(list(Path("/proc/self/task").iterdir()))


# --- TCP ports ----------------------------------------------------------------------------------


@pytest.fixture
def few_ports(monkeypatch):
    """A range of four ports, none of which anybody has."""
    addresses = [
        address
        for index, name in socket.if_nameindex()
        if (address := ports._address(index, name)) is not None
    ]
    begin = os.getpid() % 3000  # another run of the tests is to find others
    for number in range(begin, begin + 3000):
        first = 20000 + number % 3000 * 4  # which nobody is given by chance
        found = range(first, first + 4)
        if all(ports._free(address, found, 4) == 4 for address in addresses):
            monkeypatch.setenv("UCX_TCP_PORT_RANGE", f"{found[0]}-{found[-1]}")
            return found
    pytest.skip("no four ports in a row are free")


def test_ports_that_are_used_up(few_ports, make_connector):
    """Each connector has two on each interface. What is given back is to be had again."""
    two = [make_connector(), make_connector()]
    for connector in two:
        connector._open()
    third = make_connector()
    before = steady(lambda: (tasks(), open_files()))
    with pytest.raises(nc.BackendError, match=r"UCX_TCP_PORT_RANGE\) are free"):
        third._open()
    until(lambda: (tasks(), open_files()) == before)
    two[0].close_blocking()
    third._open()


@pytest.mark.parametrize("setting", ["range", "single"])
def test_ports_that_an_option_names(setting, few_ports, monkeypatch, make_connector):
    monkeypatch.delenv("UCX_TCP_PORT_RANGE")
    named = f"{few_ports[0]}-{few_ports[0]}" if setting == "range" else str(few_ports[0])
    options = {"UCX": {"engine_config": f"TCP_PORT_RANGE={named}"}}
    with pytest.raises(nc.BackendError, match="takes 2 TCP ports"):
        make_connector(backends=options)._open()


def test_ports_matter_only_where_ucx_listens(few_ports, monkeypatch):
    def refused():
        with pytest.raises(nc.BackendError):
            ports.require_ports(5, "this", {})

    refused()
    for name, others, back in (("UCX_TLS", "rc,sm", "^sm"), ("UCX_NET_DEVICES", "absent0", "lo")):
        monkeypatch.setenv(name, others)
        ports.require_ports(5, "this", {})
        monkeypatch.setenv(name, back)
        refused()


@pytest.mark.parametrize(
    ("names", "wanted", "selected"),
    [
        ("all", {"all", "tcp"}, True),
        ("tcp", {"all", "tcp"}, True),
        ("sm, tcp", {"all", "tcp"}, True),
        ("sm,self", {"all", "tcp"}, False),
        ("^tcp", {"all", "tcp"}, False),
        ("^sm", {"all", "tcp"}, True),
        ("eth0", {"all", "lo"}, False),
        ("mlx5_0:1,lo", {"all", "lo"}, True),
    ],
)
def test_lists_as_ucx_reads_them(names, wanted, selected):
    assert ports._selects(names, wanted) == selected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", range(1)),
        ("7", range(7, 8)),
        ("7-9", range(7, 10)),
        ("9-7", None),
        ("", None),
        ("x", None),
        ("1-70000", None),
    ],
)
def test_ranges_as_ucx_reads_them(text, found):
    assert ports._ports(text) == found


# UCX looks for a port for ever: the check has been taken away. It is given up, and what comes of it
# when there is a port is closed.
GIVEN_UP = """
import os, socket, sys, time
from nixl_connect.backend import agents, ports
import nixl_connect as nc
first = nc.Connector()
first._open()
ports.require_ports = lambda *_: None
agents._LONGEST = 0.5
second = nc.Connector()
try:
    second._open()
except nc.BackendError as error:
    print(error)
tasks = os.listdir("/proc/self/task")
if sys.argv[1] == "wait":
    first.close_blocking()
    end = time.monotonic() + 30
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < end:
        time.sleep(0.01)
    agents._LONGEST = 20
    with nc.Connector() as third:
        third._open()
        print("open")
"""


@pytest.mark.parametrize("what", ["wait", "leave"])
def test_an_agent_that_does_not_start_is_given_up(what, few_ports):
    named = f"{few_ports[0]}-{few_ports[1]}"
    threads_of_numpy = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    told = run_python("-c", GIVEN_UP, what, UCX_TCP_PORT_RANGE=named, **threads_of_numpy).stdout
    lines = told.splitlines()
    assert "within 0.5 s, and is given up" in lines[0]
    assert lines[1:] == (["open"] if what == "wait" else [])


def test_an_interrupted_opening_closes_what_comes_of_it(monkeypatch, make_connector):
    """A signal handler raises while the agent starts, on its own thread."""
    connector = make_connector()
    with make_connector() as warm:
        warm._open()
    before = steady(lambda: (tasks(), open_files()))
    started, held = threading.Event(), threading.Event()
    real = agents._start_transports

    def slow(*arguments):
        started.set()
        assert held.wait(20)
        real(*arguments)

    monkeypatch.setattr(agents, "_start_transports", slow)
    monkeypatch.setattr(agents.threading.Thread, "join", lambda *_: _interrupt(started))
    with pytest.raises(KeyboardInterrupt):
        connector._open()
    monkeypatch.undo()
    held.set()
    until(lambda: (tasks(), open_files()) == before)
    connector._open()


def _interrupt(started):
    assert started.wait(20)
    raise KeyboardInterrupt


@pytest.mark.parametrize("failing", ["", ".messenger"])
@pytest.mark.parametrize("first", [True, False])
def test_one_of_two_agents_does_not_start(failing, first, monkeypatch, make_connector):
    """The other is closed, whether it is there by then or comes later."""
    connector = make_connector()
    with make_connector() as warm:
        warm._open()
    before = steady(lambda: (tasks(), open_files()))
    ended = threading.Event()
    real = agents._start_transports

    def one_fails(agent, *arguments):
        fails = agent.name.endswith(b".messenger") == bool(failing)
        if fails != first:
            assert ended.wait(20)
        try:
            if fails:
                raise nc.BackendError("there is no more of it")
            real(agent, *arguments)
        finally:
            if fails == first:
                ended.set()

    monkeypatch.setattr(agents, "_start_transports", one_fails)
    with pytest.raises(nc.BackendError, match="no more of it"):
        connector._open()
    monkeypatch.undo()
    until(lambda: (tasks(), open_files()) == before)
    connector._open()


# --- threads ------------------------------------------------------------------------------------


def test_threads_are_counted():
    assert threads.spare_threads(0) == 0
    assert threads.spare_threads(5) == 5


def test_no_thread_for_an_agent(monkeypatch, make_connector):
    monkeypatch.setattr(threads, "spare_threads", lambda count: count - 1)
    connector = make_connector()
    with pytest.raises(nc.BackendError, match=r"takes 5 threads, and 4 .* \(ulimit -u\)"):
        connector._open()
    monkeypatch.undo()
    connector._open()


@pytest.mark.parametrize("which", range(3))
def test_no_thread_in_the_middle_of_an_opening(which, monkeypatch, make_connector):
    """Each of those that run Python in turn: all is undone, and later works."""
    connector = make_connector()
    with make_connector() as warm:
        warm._open()
    before = steady(lambda: (tasks(), open_files()))
    left, real = [which], threading.Thread.start
    made, make = [], agents._made

    def remembered(*arguments):
        made.append(make(*arguments))
        return made[-1]

    def start(thread):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(agents, "_made", remembered)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(nc.BackendError, match="no thread can be started") as caught:
        connector._open()
    monkeypatch.undo()
    # While the error is still there: nothing waits for it to go.
    until(lambda: (tasks(), open_files()) == before)
    for agent in made:
        with pytest.raises(AgentClosedError):
            agent.plugins()
    assert caught.value is not None
    connector._open()


# --- shared memory ------------------------------------------------------------------------------


def mounted(options, program=MOVE):
    """Run a program where /dev/shm is mounted with these options; return what it printed."""
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root, and the command unshare")
    script = f'mount -t tmpfs -o {options} tmpfs /dev/shm || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", program],
        check=False,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=50,
    )
    if done.returncode in (1, 77) and "mount" in done.stderr + done.stdout:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "options",
    [
        "size=1m",
        "size=16m",
        "size=16400k",
        "size=20500k",
        "size=24600k",
        "size=33m",
        "size=64m",
        "ro",
        "nr_inodes=1",
    ],
)
def test_shared_memory_that_is_scarce(options):
    """UCX crashes where there are just above 16 MiB, and opens nothing where it may not write."""
    assert mounted(options) == "True\n"


def test_what_is_asked_of_shared_memory(tmp_path, monkeypatch):
    is_usable = functools.partial(shared_memory.is_usable, {}, 2)
    monkeypatch.setenv("UCX_POSIX_DIR", str(tmp_path))
    assert is_usable()
    monkeypatch.setenv("UCX_POSIX_DIR", str(tmp_path / "absent"))
    assert not is_usable()
    monkeypatch.delenv("UCX_POSIX_DIR")
    assert shared_memory.is_usable({b"POSIX_DIR": os.fsencode(tmp_path)}, 1)
    assert not shared_memory.is_usable({b"POSIX_DIR": b"/proc"}, 1)


# --- locked memory ------------------------------------------------------------------------------


def test_locked_memory_is_named_where_rdma_devices_are(tmp_path, monkeypatch):
    monkeypatch.setattr(surroundings, "_RDMA", tmp_path)
    limit = functools.partial(monkeypatch.setattr, surroundings.resource, "getrlimit")
    limit(lambda _: (65536, 65536))
    assert "locked memory" not in surroundings.why_no_transport()
    (tmp_path / "mlx5_0").mkdir()
    assert "65536 bytes: raise the limit (ulimit -l unlimited)" in surroundings.why_no_transport()
    limit(lambda _: (surroundings.resource.RLIM_INFINITY,) * 2)
    assert "locked memory" not in surroundings.why_no_transport()

"""``nixl-connect top``: what it shows of running processes, on a terminal and off it."""

import contextlib
import errno
import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time

import pytest
from commands import finished
from rich.console import Console

from nixl_connect.cli.text import printable
from nixl_connect.cli.top import view as top_view
from nixl_connect.cli.top.figures import Figures, figures
from nixl_connect.cli.top.source import Sources
from nixl_connect.engine.options import MONITOR

DEADLINE = 30
MAIN = f"""
import sys; sys.path[:] = {sys.path!r}
from nixl_connect.cli import main
sys.exit(main())
"""
# Has the standard input for the terminal that its Ctrl-C comes from.
OF_A_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
# Offers 99 bytes that nobody takes, and moves 1,000 within itself as often as it is told to.
PROGRAM = f"""
import sys; sys.path[:] = {sys.path!r}
from nixl_connect import Connector, Descriptor

owner, mover = Connector("owner"), Connector("mover")
stuck = owner.create_writable_blocking(Descriptor(bytearray(99)))
stuck.metadata()
mover.create_readable_blocking(Descriptor(bytearray(8))).cancel()
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        offered = owner.create_readable_blocking(Descriptor(bytearray(1000)))
        read = mover.begin_read_blocking(offered.metadata(), Descriptor(bytearray(1000)))
        read.wait_for_completion_blocking(10)
        offered.wait_for_completion_blocking(10)
    print("moved", flush=True)
"""


@pytest.fixture
def program(folder):
    """Start programs that can be looked at."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {MONITOR: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=DEADLINE)


def move(process, times):
    process.stdin.write(f"{times}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "moved\n"


@pytest.fixture
def top(folder):
    """Run the command in the folder's environment; return its status, output and errors."""

    def run(*arguments, **environment):
        command = [sys.executable, "-c", MAIN, "top", "--interval", "0.2", *arguments]
        return finished(command, **({MONITOR: str(folder)} | environment))

    return run


def test_json(program, folder):
    """Figures of what was done between two looks, and no others."""
    process = program()
    move(process, 3)
    looking = subprocess.Popen(
        [sys.executable, "-c", MAIN, "top", "--json", "--interval", "2", "--stuck", "0.1"],
        env=os.environ | {MONITOR: str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        first = json.loads(looking.stdout.readline())
        move(process, 5)
        second = json.loads(looking.stdout.readline())
        third = json.loads(looking.stdout.readline())
    finally:
        looking.send_signal(signal.SIGINT)
        looking.communicate(timeout=DEADLINE)
    assert looking.returncode == 0
    mover, owner = second["connectors"]
    assert (mover["name"], owner["name"]) == ("mover-1", "owner-1")
    assert mover["pid"] == owner["pid"] == process.pid
    assert mover["stats"]["ended"]["read"]["complete"] == 8
    assert first["silent"] == []
    # Which look the five fell in is not known, but to one of them.
    rates = [look["connectors"][0]["rates"] for look in (first, second, third)]
    assert sum(rate["complete"] * rate["seconds"] for rate in rates) == pytest.approx(5)
    assert sum(rate["moved"] * rate["seconds"] for rate in rates) == pytest.approx(5000)
    assert sum(rate["moved_by_peers"] for rate in rates) == 0
    busy = max(rates, key=lambda rate: rate["complete"])
    assert 0 < busy["median"] <= busy["p99"] < 10
    owned = [look["connectors"][1]["rates"] for look in (first, second, third)]
    assert sum(rate["moved_by_peers"] * rate["seconds"] for rate in owned) == pytest.approx(5000)
    assert [peer["name"] for peer in mover["peers"]] == ["owner-1"]
    (stuck,) = owner["stuck"]
    assert (stuck["kind"], stuck["nbytes"], stuck["phase"]) == ("writable", 99, "waiting")


def test_plain_page(program, top):
    process = program()
    move(process, 2)
    status, out, err = top("--stuck", "0.1")
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert "1 process, 2 connectors" in out
    lines = [line.split() for line in out.splitlines()]
    # Complete, cancelled, errored, registered, held, quarantined, peers, reloads.
    pid = str(process.pid)
    held = [line for line in lines if line[:1] == [pid] and len(line) == 13]
    (owner,) = [line for line in held if line[1] == "owner-1"]
    assert owner[2:] == ["2", "0", "0", "99", "B", "99", "B", "0", "B", "0", "0"]
    (mover,) = [line for line in held if line[1] == "mover-1"]
    assert mover[2:5] == ["2", "1", "0"]
    (peer,) = [line for line in lines if line[:2] == ["owner-1", pid]]
    assert peer[2] == "mover-1"
    assert "1 waiting" in out
    (stuck,) = [line for line in lines if "writable" in line]
    assert stuck[-2:] == [pid, "owner-1"]
    status, out, _ = top("--stuck", "1000")
    assert "no operation is older than 1000 s" in out
    assert "writable" not in out


def test_one_of_several(program, top, folder):
    first, second = program(), program()
    _, out, _ = top("--json", "--count", "1")
    assert {found["pid"] for found in json.loads(out)["connectors"]} == {first.pid, second.pid}
    _, out, _ = top("--json", "--count", "1", str(second.pid))
    assert {found["pid"] for found in json.loads(out)["connectors"]} == {second.pid}
    (path,) = folder.glob(f"{first.pid}-*")
    _, out, _ = top("--json", "--count", "1", str(path), **{MONITOR: "1"})
    assert {found["pid"] for found in json.loads(out)["connectors"]} == {first.pid}
    second.kill()
    second.wait(DEADLINE)
    status, out, _ = top("--json", "--count", "1")
    assert {found["pid"] for found in json.loads(out)["connectors"]} == {first.pid}
    status, _, err = top(str(second.pid))
    assert (status, err) == (1, f"nixl-connect: there is no process {second.pid}\n")


def test_of_another_version(folder, top):
    """Or of another program: it is named, and the others are shown."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / f"{os.getpid()}-abcdef.sock"))
        listening.listen()

        def answer():
            for told in (b'{"pid": 1}\n', b"[]\n", b"nonsense\n"):
                client, _ = listening.accept()
                with client:
                    client.sendall(told)

        thread = threading.Thread(target=answer)
        thread.start()
        status, out, _ = top("--json", "--count", "1")
        assert (status, json.loads(out)["silent"]) == (0, [os.getpid()])
        thread.join(DEADLINE)


def test_a_process_that_is_stopped(program, top):
    process = program()
    process.send_signal(signal.SIGSTOP)
    try:
        status, out, _ = top("--json", "--count", "1")
        assert json.loads(out)["silent"] == [process.pid]
        status, out, _ = top()
        assert f"no answer from {process.pid}" in out
    finally:
        process.send_signal(signal.SIGCONT)
    assert status == 0


def test_a_process_that_is_stopped_and_was_asked_often(folder):
    """Its socket takes no more who ask; that is silence, too, and not its end."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(folder / "1-abcdef.sock"))
        listening.listen(0)
        said = 0
        while said == 0:
            asking = stack.enter_context(socket.socket(socket.AF_UNIX))
            asking.setblocking(False)
            said = asking.connect_ex(listening.getsockname())
        assert said == errno.EAGAIN
        sources = Sources(str(folder))
        assert sources.read() == []
        assert sources.silent == [1]


def test_nobody(top):
    status, out, err = top()
    assert (status, out) == (1, "")
    assert err.startswith("nixl-connect: no process here tells what its connectors do")
    assert "NIXL_CONNECT_MONITOR=1" in err
    assert "monitor.serve()" in err
    status, _, err = top("/nowhere/at/all")
    assert status == 2
    assert err == "nixl-connect: /nowhere/at/all is not a process, a socket or a folder\n"
    for wrong in (["--count", "0"], ["--interval", "-1"], ["--stuck", "x"]):
        status, _, err = top(*wrong)
        assert status == 2
        assert wrong[0] in err


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_on_a_terminal(program, folder, key):
    """It fills the terminal, ends when told to, and leaves the terminal as it was."""
    program()
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", OF_A_TERMINAL + MAIN, "top", "--interval", "0.2"],
        env=os.environ | {MONITOR: str(folder), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdin=follower,
        stdout=follower,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        shown = b""
        end = time.monotonic() + DEADLINE
        while shown.count(b"1 process, 2 connectors") < 3:
            assert time.monotonic() < end, shown
            if select.select([leader], [], [], 1)[0]:
                shown += os.read(leader, 1 << 16)
        assert shown.startswith(b"\x1b[?1049h")
        os.write(leader, key)
        while b"\x1b[?1049l" not in shown:
            assert time.monotonic() < end, shown
            if select.select([leader], [], [], 1)[0]:
                shown += os.read(leader, 1 << 16)
        assert process.wait(DEADLINE) == 0
        assert process.stderr.read() == b""
        assert termios.tcgetattr(follower)[3] & termios.ICANON
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE)
        os.close(leader)
        os.close(follower)


def test_names_of_others_do_nothing_to_a_terminal():
    assert printable("a\x1b[2Jb\r\n\u202ec é漢") == "a\ufffd[2Jb\ufffd\ufffd\ufffdc é漢"


def test_a_page_says_what_it_leaves_out(program, top):
    """Of many peers and connectors, and no more than that."""
    process = program()
    _, out, _ = top("--json", "--count", "1")
    document = json.loads(out)
    one = document["connectors"][0]
    peer = {"name": "p", "in_flight": 0, "regions": 1, "idle": 0.0}
    found = Figures(process.pid, "x", "x", one["stats"], [], [peer] * 15, None)
    for count, more in ((1, ["and 3 more"]), (30, ["and 6 more", "and 438 more"])):
        console = Console(file=io.StringIO(), width=200)
        console.print(top_view.page([found] * count, [], 1.0))
        lines = console.file.getvalue().splitlines()
        assert [line for line in lines if line.startswith("and ")] == more


def test_a_connector_that_came_meanwhile_has_no_rates():
    process = {
        "pid": 1,
        "program": "p",
        "clock": 10.0,
        "connectors": [{"id": 1, "name": "x", "stats": {}, "operations": [], "peers": []}],
    }
    (found,) = figures([], [process])
    assert found.rates is None
    assert top_view.document([found], [], 1.0)["connectors"][0]["rates"] is None

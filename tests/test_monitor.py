"""The socket that tells what the connectors of a process do."""

import errno
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest
from processes import opened, until

import nixl_connect as nc
from nixl_connect import monitor
from nixl_connect.engine.options import MONITOR

DEADLINE = 20


def ask(path):
    """Return what a socket tells."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(str(path))
        told = b""
        while part := connection.recv(1 << 16):
            told += part
    return told


def test_what_it_tells(make_connector, folder):
    connector = make_connector("told")
    make_connector("unopened")
    closed = make_connector("closed")
    closed.create_readable_blocking(nc.Descriptor(bytearray(8)))
    closed.close_blocking()
    secret = bytearray(b"a secret of the user's")
    offered = connector.create_readable_blocking(nc.Descriptor(secret), timeout=float("inf"))
    metadata = offered.metadata()
    with monitor.serve(folder) as served:
        before = time.time()
        told = ask(served.path)
    assert told.endswith(b"}\n")
    for private in (secret, metadata.notification_key.encode(), metadata.nixl_metadata.encode()):
        assert bytes(private) not in told
    snapshot = json.loads(told)
    assert snapshot["pid"] == os.getpid()
    assert snapshot["version"] == nc.__version__
    assert before <= snapshot["time"] <= time.time()
    (found,) = snapshot["connectors"]
    assert found["name"] == "told-1"
    assert found["stats"]["operations"]["phases"]["waiting"] == 1
    (operation,) = found["operations"]
    assert (operation["kind"], operation["phase"]) == ("readable", "waiting")
    assert operation["nbytes"] == len(secret)
    assert operation["left"] is None
    assert found["peers"] == []


def test_no_more_than_a_hundred_of_each(connector, folder, monkeypatch):
    made = [connector.create_readable_blocking(nc.Descriptor(bytearray(8))) for _ in range(300)]
    peer = nc.PeerReport("somebody", 1, 0, 1.0, near=True)
    monkeypatch.setattr(monitor, "peers", lambda engine: [peer] * 300)
    with monitor.serve(folder) as served:
        (found,) = json.loads(ask(served.path))["connectors"]
    assert len(found["peers"]) == 100
    assert [operation["number"] for operation in found["operations"]] == list(range(1, 101))
    assert found["stats"]["operations"]["waiting"] == len(made)


def test_only_its_user_may_look(folder):
    inner = folder / "new"
    with monitor.serve(inner) as served:
        assert stat.S_IMODE(inner.stat().st_mode) == 0o700
        assert served.path.parent == inner
    inner.chmod(0o711)
    with pytest.raises(nc.BackendError, match="open to others"):
        monitor.serve(inner)
    inner.chmod(0o700)
    (folder / "link").symlink_to(inner)
    with pytest.raises(nc.BackendError, match="not a folder of this user"):
        monitor.serve(folder / "link")
    (folder / "file").write_text("")
    with pytest.raises(nc.BackendError):
        monitor.serve(folder / "file")
    with pytest.raises(nc.BackendError, match="too long"):
        monitor.serve(folder / ("long" * 30))


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.settimeout(20)
    asking.connect(sys.argv[1])
    print(asking.recv(100))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_other_users_are_not_answered(folder, tmp_path_factory):
    """Also where somebody has opened the folder after all."""
    with monitor.serve(folder) as served:
        opened(folder)
        served.path.chmod(0o777)
        run = subprocess.run(
            ["/usr/bin/env", "python3", "-c", ASK, str(served.path)],
            user=65534,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert (run.returncode, run.stdout) == (0, "b''\n"), run.stderr
        assert ask(served.path)


def test_a_client_that_takes_nothing_delays_others_only(connector, folder, monkeypatch):
    monkeypatch.setattr(monitor, "_PATIENCE", 3.0)
    made = [connector.create_readable_blocking(nc.Descriptor(bytearray(8))) for _ in range(100)]
    told = json.dumps(monitor.snapshot())
    monkeypatch.setattr(monitor, "snapshot", lambda: [told] * 500)  # more than a socket holds
    with monitor.serve(folder) as served, socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(served.path))
        assert len(ask(served.path)) > len(told) * 500
    monkeypatch.setattr(monitor, "_PATIENCE", 1e6)
    with monitor.serve(folder) as served, socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(served.path))
        until(lambda: served._client is not None)
        served.close()  # does not wait for it
        assert not served._thread.is_alive()
    del made


def test_a_snapshot_that_fails_is_logged_and_not_the_end(folder, monkeypatch, caplog):
    def fail():
        raise RuntimeError("for the test")

    with monitor.serve(folder) as served:
        with monkeypatch.context() as patch:
            patch.setattr(monitor, "snapshot", fail)
            assert ask(served.path) == b""
        assert ask(served.path)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR


def test_closing(folder):
    served = monitor.serve(folder)
    other = monitor.serve(folder)
    assert served.path != other.path
    assert ask(other.path)
    served.close()
    served.close()
    assert not served.path.exists()
    assert not served._thread.is_alive()
    assert ask(other.path)
    other.close()
    with pytest.raises(FileNotFoundError):
        ask(other.path)


def test_sockets_of_killed_processes_are_removed(folder, monkeypatch):
    dead, foreign = folder / "1-abcdef.sock", folder / "postgres.sock"
    for path in (dead, foreign):
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    with monitor.serve(folder) as young:
        assert dead.exists()  # it might be about to listen
        monkeypatch.setattr(monitor, "_YOUNG", -1.0)
        with monitor.serve(folder):
            assert not dead.exists()
            assert foreign.exists()
            assert ask(young.path)


PROGRAM = """
import os, sys
import nixl_connect as nc
connector = nc.Connector("asked")
assert not any(os.scandir(os.environ["FOLDER"])), "before it was needed"
operation = connector.create_readable_blocking(nc.Descriptor(b"12345678"))
nc.Connector("another").create_readable_blocking(nc.Descriptor(b"12345678"))
print(*os.listdir(os.environ["FOLDER"]), flush=True)
{}
sys.stdin.readline()
"""
FORK = """
read, write = os.pipe()
if os.fork() == 0:
    # The child takes nothing of the parent's with it when it ends.
    import atexit
    from nixl_connect import monitor
    os.write(write, str(len(monitor._monitors)).encode())
    atexit._run_exitfuncs()
    os._exit(0)
assert os.read(read, 10) == b"0"
os.wait()
print("child ended", flush=True)
"""


@pytest.fixture
def start(folder):
    """Start a program that opens connectors, asked by its environment; return it and its line."""
    started = []

    def popen(more="", **environment):
        program = PROGRAM.format(more)
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{program}"],
            env=os.environ | {"FOLDER": str(folder)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().split()

    yield popen
    for process in started:
        process.kill()
        process.communicate(timeout=DEADLINE)


def test_asked_by_the_environment(start, folder):
    process, names = start(**{MONITOR: str(folder)})
    (name,) = names  # one for the process, whatever it has of connectors
    assert name.startswith(f"{process.pid}-")
    snapshot = json.loads(ask(folder / name))
    assert sorted(c["name"] for c in snapshot["connectors"]) in (
        ["another-1", "asked-1"],
        ["asked-1"],
    )
    _, errors = process.communicate("\n", timeout=DEADLINE)
    assert (process.returncode, errors) == (0, "")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("environment", [{}, {MONITOR: ""}, {MONITOR: "0"}])
def test_not_asked(start, environment):
    process, names = start(**environment)
    assert names == []
    _, errors = process.communicate("\n", timeout=DEADLINE)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("/proc/nowhere", "cannot open a socket for nixl-connect top: "),
        ("true", "it must be 1, or the path of a folder"),
    ],
)
def test_where_it_cannot_be_opened_work_goes_on(start, asked, why):
    process, names = start(**{MONITOR: asked})
    assert names == []
    _, errors = process.communicate("\n", timeout=DEADLINE)
    assert process.returncode == 0
    assert errors.startswith(f"NIXL_CONNECT_MONITOR={asked}: {why}")


def test_without_a_thread_to_answer_nothing_is_left(folder, monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(nc.BackendError, match="new thread"):
        monitor.serve(folder)
    assert not list(folder.iterdir())
    assert not monitor._monitors


def test_a_client_that_leaves_does_not_kill(folder):
    """Also a program that has SIGPIPE as the system has it."""
    program = f"""
import signal, sys; sys.path[:] = {sys.path!r}
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
from nixl_connect import monitor
answer = monitor.snapshot
def late():
    sys.stdin.readline()  # until the client has gone
    return answer()
monitor.snapshot = late
served = monitor.serve({str(folder)!r})
print("ready", flush=True)
served._thread.join(20)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        (path,) = folder.iterdir()
        with socket.socket(socket.AF_UNIX) as leaving:
            leaving.connect(str(path))
        process.stdin.write("\n" * 2)
        process.stdin.flush()
        assert json.loads(ask(path))["pid"] == process.pid
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE)


def test_out_of_file_descriptors_for_a_while(folder, monkeypatch):
    """Whoever connects then is answered later."""
    failed = threading.Event()
    accept = socket.socket.accept

    def fail_once(listening):
        if failed.is_set():
            return accept(listening)
        failed.set()
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket.socket, "accept", fail_once)
    with monitor.serve(folder) as served:
        assert ask(served.path)
    assert failed.is_set()


def test_a_fork_while_an_answer_is_given(folder):
    """The client sees the end, though the child has inherited the connection."""
    program = f"""
import os, sys; sys.path[:] = {sys.path!r}
from nixl_connect import monitor
answer = monitor.snapshot
def forking():
    if os.fork() == 0:
        sys.stdin.readline()  # the child stays
        os._exit(0)
    return answer()
monitor.snapshot = forking
served = monitor.serve({str(folder)!r})
print("ready", flush=True)
served._thread.join(20)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        (path,) = folder.iterdir()
        assert json.loads(ask(path))["pid"] == process.pid
    finally:
        process.kill()
        process.communicate("\n", timeout=DEADLINE)


def test_a_child_of_a_fork_leaves_it_alone(start, folder):
    process, (name,) = start(FORK, **{MONITOR: str(folder)})
    assert process.stdout.readline() == "child ended\n"
    assert json.loads(ask(folder / name))["pid"] == process.pid
    process.communicate("\n", timeout=DEADLINE)
    until(lambda: not list(folder.iterdir()))


def test_the_folders_of_a_user(folder, monkeypatch):
    assert [str(path) for path in monitor.folders(7)] == [
        "/run/user/7/nixl_connect",
        "/tmp/nixl_connect-7",
    ]
    there, other = folder / "there", folder / "other"
    monkeypatch.setattr(monitor, "folders", lambda: [there / "missing" / "x", other])
    with monitor.serve() as served:
        assert served.path.parent == other
    monkeypatch.setattr(monitor, "folders", lambda: [there, other])
    with monitor.serve() as served:
        assert served.path.parent == there

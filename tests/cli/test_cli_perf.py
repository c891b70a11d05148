"""``nixl-connect perf``: a server, clients of it, and what it refuses."""

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import COMMAND, DEADLINE, client

from nixl_connect.cli import lanes
from nixl_connect.cli.perf import picture

pytestmark = pytest.mark.timeout(120)


def told(connection):
    """Return the next message."""
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(1)
        assert part, "the server closed the connection"
        line += part
    return json.loads(line)


def test_figures(serve):
    server, port = serve()
    # Of which UCX warns, but not among the results.
    odd = {"UCX_NO_SUCH_OPTION": "1"}
    sizes = "1,100KiB,16MiB"
    status, out, err = client("--port", port, "--json", "--sizes", sizes, environment=odd)
    assert status == 0, err
    assert "UCX" in err
    report = json.loads(out)
    assert {"cma", "tcp"} <= set(report["transports"])
    rows = report["rows"]
    assert [(row["direction"], row["bytes"]) for row in rows] == [
        (direction, size) for direction in ("read", "write") for size in (1, 102_400, 16 << 20)
    ]
    for row in rows:
        assert 0 < row["fastest_seconds"] <= row["median_seconds"] <= row["p99_seconds"]
        assert row["transfers"] >= 5
        fastest = row["bytes"] / row["fastest_seconds"]
        assert 0 < row["bytes_per_second"] <= fastest * 1.001
    server.send_signal(signal.SIGINT)
    _, err = server.communicate(timeout=DEADLINE)
    assert server.returncode == 0, err


def test_a_table(serve):
    _, port = serve()
    status, out, err = client("--port", port, "--direction", "write", "--sizes", "8,4KiB")
    assert status == 0, err
    assert re.search(r"write +8 B +\d+ .*/s", out)
    assert re.search(r"write +4 KiB +\d+ .*/s", out)
    assert " read " not in out
    assert re.search(r"^UCX used .*tcp", out, re.MULTILINE)


def test_what_ucx_says_unasked_is_passed_on(capsys):
    """Whole lines, once each, whatever bytes are in them."""
    log = lanes.Log()
    try:
        os.write(
            log.number, b"[1] a.c:1 UCX  INFO  chosen\n[2] a.c:1 UCX  WARN  \xff\xfe odd\n[3] a"
        )
        log.tell()
        assert capsys.readouterr().err == "[2] a.c:1 UCX  WARN  \ufffd\ufffd odd\n"
        os.write(log.number, b".c:1 UCX  ERROR  \xff late\n")
        log.tell()
        assert capsys.readouterr().err == "[3] a.c:1 UCX  ERROR  \ufffd late\n"
        log.tell()
        assert capsys.readouterr().err == ""
    finally:
        os.close(log.number)


@pytest.mark.parametrize("low", [1e-9, 3.3e-6, 0.02, 7.0])
@pytest.mark.parametrize("factor", [1, 1.3, 40, 1e5])
def test_ticks(low, factor):
    low, high = low / picture._ROOM, low * factor * picture._ROOM
    assert 2 <= len(picture.decimal_ticks(low, high)) <= 9
    assert 2 <= len(picture.binary_ticks(low * 1e9, high * 1e9)) <= 8
    for ticks in (picture.decimal_ticks, picture.binary_ticks):
        assert all(low <= tick <= high for tick in ticks(low, high))


def test_a_picture(serve, tmp_path):
    pytest.importorskip("matplotlib")
    _, port = serve()
    path = tmp_path / "link.svg"
    with_text = {"MPLCONFIGDIR": str(tmp_path)}
    (tmp_path / "matplotlibrc").write_text("svg.fonttype: none\n")
    for sizes, shown in (
        ("8,4KiB", {"8 B", "4 KiB"}),
        ("64KiB", {"64 KiB"}),
        (",".join(str(8 << i) for i in range(22)), {"8 B", "2 MiB"}),
    ):
        arguments = ("--port", port, "--sizes", sizes, "--plot", str(path))
        status, _, err = client(*arguments, environment=with_text)
        assert status == 0, err
        root = ElementTree.parse(path).getroot()
        assert "svg" in root.tag
        texts = ["".join(item.itertext()) for item in root.iter("{http://www.w3.org/2000/svg}text")]
        assert shown <= set(texts)
        assert sum(" us" in text or " ms" in text for text in texts) >= 1
        assert sum(text.endswith("/s") for text in texts) >= 1
        title = "\n".join(texts)
        for part in ("127.0.0.1", f"{datetime.date.today():%Y-%m-%d}", "NIXL 1.", "UCX by cma"):
            assert part in title
    status, _, err = client("--port", port, "--plot", str(tmp_path / "link.doc"))
    assert (status, err[:22]) == (2, "nixl-connect: --plot: ")


def test_other_machines_are_refused():
    for host in ("0.0.0.0", "::"):
        run = subprocess.run(
            [*COMMAND, "perf", "server", "--host", host],
            check=False,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert run.returncode == 2
        assert "Say --public" in run.stderr


def test_a_key_for_a_server_without_one(serve, tmp_path):
    key = tmp_path / "key"
    key.write_text("0123456789abcdef\n")
    _, port = serve()
    status, out, err = client("--port", port, "--sizes", "8", "--key-file", str(key))
    assert (status, out) == (1, "")
    assert "has no key: start it with --key-file" in err


def test_keys(serve, tmp_path):
    right, wrong, short = (tmp_path / name for name in ("right", "wrong", "short"))
    right.write_text("0123456789abcdef\n")
    wrong.write_text("fedcba9876543210\n")
    short.write_text("0123\n")
    _, port = serve("--key-file", str(right))
    status, _, err = client("--port", port, "--sizes", "8", "--key-file", str(right))
    assert status == 0, err
    status, out, err = client("--port", port, "--sizes", "8")
    assert (status, out) == (1, "")
    assert "has a key: give it with --key-file" in err
    # Who asks all the same gets nothing.
    with socket.create_connection(("127.0.0.1", int(port)), timeout=DEADLINE) as connection:
        assert told(connection)["challenge"]
        connection.sendall(b'{"direction": "read", "bytes": 8}\n')
        assert told(connection) == {"error": "this server has a key: --key-file"}
    for key in (wrong, short, tmp_path / "none"):
        status, _, err = client("--port", port, "--sizes", "8", "--key-file", str(key))
        assert status == (1 if key is wrong else 2)
        assert err.startswith("nixl-connect: ")


def test_a_client_without_a_server():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    status, _, err = client("--port", str(port))
    assert status == 1
    assert "Start one with: nixl-connect perf server" in err


def test_nonsense(serve):
    """Each is answered, and the server goes on."""
    _, port = serve()
    for message in (
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"direction": "up", "bytes": 8}\n',
        b'{"direction": "read", "bytes": 0}\n',
        b'{"direction": "read", "bytes": 1073741824}\n',
        b'{"direction": "read", "bytes": "8"}\n',
        b'{"direction": "write", "bytes": 8, "verify": true}\n',
        b"\xff\n",
        b"[" * 100_000 + b"\n",
    ):
        with socket.create_connection(("127.0.0.1", int(port)), timeout=DEADLINE) as connection:
            assert told(connection)["most"] == 16 << 20
            connection.sendall(message)
            assert "error" in told(connection), message[:40]
    with socket.create_connection(("127.0.0.1", int(port)), timeout=DEADLINE) as connection:
        told(connection)
        with contextlib.suppress(ConnectionError):  # it hangs up on messages that are too long
            connection.sendall(b"x" * 3_000_000)
            assert "error" in told(connection)
    status, _, err = client("--port", port, "--sizes", "8")
    assert status == 0, err


def test_a_server_with_few_bytes(serve):
    """The sizes of a client that names none begin at eight."""
    _, port = serve("--size", "5")
    status, out, err = client("--port", port, "--json")
    assert status == 0, err
    assert {row["bytes"] for row in json.loads(out)["rows"]} == {5}


def test_what_clients_leave_behind_is_bounded(serve):
    """Memory that a peer may still write to is kept for minutes: eight times all that there is."""
    _, port = serve()
    answers = []
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", int(port)), timeout=DEADLINE) as connection:
            most = told(connection)["most"]
            connection.sendall(json.dumps({"direction": "write", "bytes": most}).encode() + b"\n")
            answers.append(told(connection))
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""  # it has let go of the operation
    assert ["metadata" in answer for answer in answers] == [True] * 8 + [False] * 2
    assert "QuarantineError" in answers[-1]["error"]


def test_clients_at_once(serve):
    """Four are served, one more is told so, and those that leave make room."""
    _, port = serve()
    address = ("127.0.0.1", int(port))
    there = [socket.create_connection(address, timeout=DEADLINE) for _ in range(4)]
    for connection in there:
        assert told(connection)["most"] == 16 << 20
    status, _, err = client("--port", port, "--sizes", "8")
    assert status == 1
    assert "4 clients already" in err
    for connection in there:
        connection.close()
    for _ in range(100):
        status, _, err = client("--port", port, "--sizes", "8")
        if status == 0:
            break
    assert status == 0, err


def test_nothing_listens_for_other_machines(serve):
    """Neither the server nor UCX in it, whose transfers go over the loopback interface."""
    _, port = serve()
    status, _, err = client("--port", port, "--sizes", "8,1MiB")
    assert status == 0, err
    server, _ = serve()
    inodes = {
        str(item.readlink())
        for item in Path(f"/proc/{server.pid}/fd").iterdir()
        if item.is_symlink()
    }
    listening = []
    for line in Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "0A" and f"socket:[{rest[5]}]" in inodes:
            listening.append(local.split(":")[0])
    assert listening
    assert set(listening) == {"0100007F"}  # 127.0.0.1


def test_a_picture_that_cannot_be_drawn(serve, tmp_path):
    """The figures are there all the same, as one document."""
    _, port = serve()
    (tmp_path / "a.svg").mkdir()
    options = ("--json", "--sizes", "8", "--seconds", "0.01", "--plot", str(tmp_path / "a.svg"))
    status, out, err = client("--port", port, *options)
    assert status == 1
    assert json.loads(out)["rows"]
    assert err.startswith("nixl-connect: --plot: ")


def test_what_cannot_be(serve, tmp_path):
    """Said in one line each, before anything is measured."""
    _, port = serve()
    for arguments, text in (
        (["--sizes", "8,1GiB"], "--sizes: 1 GiB is more than the server's 16 MiB"),
        (["--plot", str(tmp_path / "none" / "a.svg")], "there is no folder"),
        (["--sizes", "0"], "at least 1 byte"),
    ):
        status, out, err = client("--port", port, *arguments)
        assert (status, out) == (2, ""), err
        assert text in err
        assert "Traceback" not in err
    status, _, err = client("a" * 70)
    assert status == 1
    assert err.startswith("nixl-connect: aaaa")


@pytest.mark.parametrize(
    "greeting",
    [b"{}", b"[]", b"5", b'{"most": "x"}', b'{"most": 0}', b'{"most": -8}', b"[" * 50_000, b"x"],
)
def test_a_server_of_something_else(greeting):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting + b"\n")
                connection.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        status, out, err = client("--port", str(server.getsockname()[1]))
        thread.join(DEADLINE)
    assert (status, out) == (1, ""), err
    assert err.startswith("nixl-connect: 127.0.0.1 port")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_ends_while_clients_are_there(serve, number):
    """One that has memory to write to, and one that says nothing."""
    server, port = serve()
    address = ("127.0.0.1", int(port))
    with (
        socket.create_connection(address, timeout=DEADLINE) as busy,
        socket.create_connection(address, timeout=DEADLINE) as silent,
    ):
        told(busy)
        told(silent)
        busy.sendall(b'{"direction": "write", "bytes": 4096}\n')
        assert "metadata" in told(busy)
        server.send_signal(number)
        _, err = server.communicate(timeout=DEADLINE)
    assert server.returncode == 0
    assert "Traceback" not in err

"""``nixl-connect top`` and those who mean it no good: whose folders it reads, what it believes."""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time

import pytest
from processes import opened

from nixl_connect import monitor
from nixl_connect.cli import main
from nixl_connect.cli.top import source
from nixl_connect.cli.top.source import Sources
from nixl_connect.engine.options import MONITOR

DEADLINE = 20
NOBODY = 65534
KINDS = ("read", "write", "repeated", "readable", "writable")
EVIL = (
    "\x1b]0;title\x07\x1b[2J\x1b[31mx\x9b1m\u202e\r\n\x00\ud800[bold red]y[/bold red][/nope]:smile:"
)
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")


def sound():
    """What a process tells."""
    ended = dict.fromkeys(("complete", "cancelled", "errored", "bytes", "seconds"), 0)
    return {
        "version": "0",
        "pid": 4711,
        "program": "p",
        "time": 0.0,
        "clock": 1.0,
        "connectors": [
            {
                "id": 1,
                "name": "n",
                "stats": {
                    "operations": {"phases": {"waiting": 1}, "held_bytes": 0}
                    | {"quarantined_bytes": 0, "started": 1},
                    "registrations": {"bytes": 0},
                    "peers": {"count": 0, "reloads": 0},
                    "ended": {kind: ended | {"durations": [0] * 30} for kind in KINDS},
                    "duration_bounds": [1e-6] * 29,
                    "library": {"path": "l", "version": None},
                },
                "operations": [
                    {"number": 1, "kind": "read", "phase": "waiting", "nbytes": 1, "age": 99.0}
                    | {"left": None, "peer": "r"}
                ],
                "peers": [{"name": "r", "in_flight": 1, "regions": 1, "idle": 0.0, "near": True}],
            }
        ],
    }


def places(value, path=()):
    """Return the paths to everything in a document."""
    yield path
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def put(document, path, value):
    """Return a document with another value at a path."""
    if not path:
        return value
    document = json.loads(json.dumps(document))
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


@contextlib.contextmanager
def telling(folder, raw, name="4711-abcdef.sock"):
    """Have a thread answer everybody with the same bytes."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / name))
        listening.listen()

        def answer():
            with contextlib.suppress(OSError):  # closed
                while True:
                    client, _ = listening.accept()
                    with client, contextlib.suppress(OSError):
                        client.sendall(raw + b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)
    (folder / name).unlink()


@pytest.fixture
def top(folder, monkeypatch, capsys):
    """Run the command; return its status, output and errors."""
    monkeypatch.setenv("UCX_LOG_FILE", "stderr")
    monkeypatch.setenv(MONITOR, str(folder))

    def run(*arguments):
        status = main(["top", "--interval", "0.01", "--count", "1", *arguments])
        return (status, *capsys.readouterr())

    return run


def test_what_is_sound(folder, top):
    with telling(folder, json.dumps(sound()).encode()):
        status, out, _ = top("--json")
        (found,) = json.loads(out)["connectors"]
        status, page, _ = top()
    assert status == 0
    # All of it, and what this version does not know, too.
    assert found["stats"] == sound()["connectors"][0]["stats"]
    assert found["rates"] is None
    assert "4711 p" in page


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"pid":' + b"9" * 100_000 + b"}",
        json.dumps(put(sound(), ("more",), 1)).replace('"more": 1', '"more": 1e999').encode(),
        json.dumps(put(sound(), ("more",), 1)).replace('"more": 1', '"more": NaN').encode(),
        json.dumps(put(sound(), ("more",), 10**30)).encode(),
        json.dumps(put(sound(), ("more",), [[[[[[[[[[[[[[]]]]]]]]]]]]]])).encode(),
        json.dumps(put(sound(), ("pid",), 1 << 70)).encode(),
        json.dumps(sound()).encode("utf-16"),
        json.dumps(sound()).encode()[:-1],
        b"\xff\xfe\xfd",
        b"null",
    ],
    ids=lambda raw: raw[:20].decode(errors="replace") + str(len(raw)),
)
def test_what_makes_no_sense(folder, top, raw):
    with telling(folder, raw):
        status, out, err = top("--json")
        assert (status, json.loads(out)["silent"], err) == (0, [4711], "")
        status, out, err = top()
    assert (status, err) == (0, "")
    assert "no answer from 4711" in out


@pytest.mark.parametrize(
    "value",
    [EVIL, -1, 1.5, True, None, [], {}, [EVIL], {EVIL: EVIL}, 1e300],
    ids=lambda value: type(value).__name__,
)
def test_anything_in_the_place_of_anything(folder, top, value):
    """It is shown or left out; nothing else comes of it."""
    paths = [path for path in places(sound()) if "durations" not in path[:-1]]
    for i, path in enumerate(paths):
        if "duration_bounds" in path[:-1] and path[-1]:
            continue
        raw = json.dumps(put(sound(), path, value)).encode()
        with telling(folder, raw, f"{i + 1}-abcdef.sock"):
            for arguments in (("--json",), ()):
                status, out, err = top(*arguments)
                assert (status, err) == (0, "")
                assert all(c.isprintable() or c == "\n" for c in out)


def test_text_is_shown_as_it_is(folder, top):
    """What a terminal would act on is replaced, and there is no markup."""
    document = sound()
    (connector,) = document["connectors"]
    document["program"] = connector["name"] = EVIL
    connector["stats"]["operations"]["phases"] = {EVIL: 1}
    connector["operations"][0] |= {"kind": EVIL, "phase": EVIL, "peer": EVIL}
    connector["peers"][0]["name"] = EVIL
    with telling(folder, json.dumps(document).encode()):
        _, page, _ = top()
        _, out, _ = top("--json")
    joined = "".join(page.split())
    assert all(c.isprintable() or c == "\n" for c in page)
    assert "[boldred]" in joined
    assert ":smile:" in joined
    assert "\N{REPLACEMENT CHARACTER}" in joined
    (found,) = json.loads(out)["connectors"]
    assert found["name"].isprintable()
    out.encode()  # no surrogate


def test_between_two_looks_all_may_change(folder, top):
    """As where another process has the number of one that has ended."""
    other = sound()
    stats = other["connectors"][0]["stats"]
    other["clock"] = 2.0
    stats["duration_bounds"] = [1e-6] * 3
    for kind in KINDS:
        stats["ended"][kind]["durations"] = [1] * 4
    answers = [json.dumps(item).encode() + b"\n" for item in (sound(), sound(), other)]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "4711-abcdef.sock"))
        listening.listen()

        def answer():
            for raw in answers:
                client, _ = listening.accept()
                with client:
                    client.sendall(raw)

        thread = threading.Thread(target=answer)
        thread.start()
        status, out, _ = top("--json")
        thread.join(DEADLINE)
    assert status == 0
    assert json.loads(out)["connectors"][0]["rates"] is None


@pytest.mark.parametrize("part", [b" ", b"[" * 1000])
def test_whoever_never_ends(folder, monkeypatch, part):
    """A byte at a time, or without a bound."""
    monkeypatch.setattr(source, "_PATIENCE", 0.5)
    monkeypatch.setattr(source, "_LONGEST", 100_000)
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "4711-abcdef.sock"))
        listening.listen()

        def answer():
            client, _ = listening.accept()
            with client, contextlib.suppress(OSError):
                while not done.wait(0.0005):
                    client.sendall(part)

        thread = threading.Thread(target=answer)
        thread.start()
        sources = Sources(str(folder))
        began = time.monotonic()
        assert sources.read() == []
        assert time.monotonic() - began < DEADLINE
        done.set()
        thread.join(DEADLINE)
    assert sources.silent == [4711]


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o710, 0o1777])
def test_a_folder_that_is_open_to_others(folder, top, mode):
    """Anybody might have put sockets there: they are not even looked at."""
    with telling(folder, json.dumps(sound()).encode()):
        folder.chmod(mode)
        status, out, err = top()
        assert (status, out) == (1, "")
        assert err.endswith(f"; {folder} is open to others: chmod 700\n")
        status, out, err = top(str(folder))
        folder.chmod(0o700)
    assert (status, out) == (2, "")
    assert err == f"nixl-connect: {folder} is open to others: chmod 700\n"


def test_a_folder_that_is_a_link(folder, top, monkeypatch):
    """Of the places where one is looked for; one that is named may be."""
    inner = folder / "inner"
    inner.mkdir(mode=0o700)
    (folder / "link").symlink_to(inner)
    monkeypatch.setenv(MONITOR, str(folder / "link"))
    with telling(inner, json.dumps(sound()).encode()):
        status, _, err = top()
        assert status == 1
        assert "link is not a folder of this user" in err
        assert top(str(folder / "link"))[0] == 0


TELL = """
import os, socket, sys
os.chdir(sys.argv[1])
listening = socket.socket(socket.AF_UNIX)
listening.bind(f"{os.getpid()}-abcdef.sock")
listening.listen()
print("ready", flush=True)
while True:
    client, _ = listening.accept()
    with client:
        client.sendall(sys.argv[2].encode())
"""


@pytest.fixture
def stranger(folder):
    """Start a process of another user, which answers in a folder of its own; return both."""
    theirs = folder / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, NOBODY, NOBODY)
    opened(folder)
    process = subprocess.Popen(
        ["/usr/bin/env", "python3", "-c", TELL, str(theirs), json.dumps(sound()) + "\n"],
        user=NOBODY,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    yield process.pid, theirs
    process.kill()
    process.communicate(timeout=DEADLINE)


@as_root
def test_a_folder_that_somebody_else_made_first(stranger, top, monkeypatch):
    """In a place such as /tmp."""
    _, theirs = stranger
    monkeypatch.delenv(MONITOR)
    monkeypatch.setattr(monitor, "folders", lambda user=None: [theirs])
    status, out, err = top()
    assert (status, out) == (1, "")
    assert f"{theirs} is not a folder of this user" in err


@as_root
def test_root_looks_at_what_it_names(stranger, top, monkeypatch, folder):
    """At a user's process, folder or socket, and at nothing that others have put in between."""
    pid, theirs = stranger
    monkeypatch.delenv(MONITOR)
    mine = folder / "mine"
    mine.mkdir(mode=0o700)
    monkeypatch.setattr(monitor, "folders", lambda user: [theirs if user == NOBODY else mine])
    (path,) = theirs.iterdir()
    for where in (pid, theirs, path):
        status, out, _ = top("--json", str(where))
        assert (status, [item["pid"] for item in json.loads(out)["connectors"]]) == (0, [4711])
    # A socket of another user in that folder.
    with telling(theirs, json.dumps(sound()).encode(), "99-abcdef.sock"):
        _, out, _ = top("--json", str(theirs))
        assert len(json.loads(out)["connectors"]) == 1
        assert json.loads(out)["silent"] == [99]
    # A folder of another user in the place of that user's.
    monkeypatch.setattr(monitor, "folders", lambda user: [mine])
    status, _, err = top(str(pid))
    assert status == 1
    assert f"{mine} is not a folder of the user {NOBODY}" in err


def test_a_number_that_is_no_process(top):
    for where in ("9" * 10_000, "99999999999", "0"):
        status, out, err = top(where)
        assert (status, out) == (1, "")
        assert err.startswith("nixl-connect: there is no process ")
        assert len(err) < 100


def test_errors_are_printed_as_text(top):
    """They may quote what somebody else said."""
    status, _, err = top("/nowhere\x1b[2J\x9b\n/at\u202eall")
    assert status == 2
    assert err.isprintable() or all(c.isprintable() or c == "\n" for c in err)

"""Runs the Python of README.md and docs/: what readers are shown is what works.

A block whose first line names a file, such as ``# sender.py``, is a program of its own. The other
blocks of a page run in order as one program, in which ``await`` is allowed at the top level.
"""

import importlib.util
import itertools
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from documented import DEADLINE
from pages import PAGES, ROOT, blocks, commands, output_of, pattern, programs
from processes import until

from nixl_connect.memory import cuda

TUTORIAL = ROOT / "docs" / "tutorial.md"

# With `await` at the top level, to evaluate a module's code is to make a coroutine.
_RUN_PAGE = """
import ast, asyncio, pathlib, sys
path = sys.argv[1]
text = pathlib.Path(path).read_text()
code = compile(text, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
coroutine = eval(code, {"__name__": "__main__"})
if coroutine is not None:
    asyncio.run(coroutine)
"""


def _fragments(page: Path) -> str:
    """Return the blocks of a page that are no programs, on the lines that they have in the page."""
    source = ""
    for block in blocks(page, "python"):
        if block.program is None:
            source += "\n" * (block.line - 1 - source.count("\n")) + block.text
    return source


def _end(process: subprocess.Popen) -> str:
    """Wait for a process to succeed; return its output."""
    output, error = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, error
    return output


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if _fragments(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_page(page, start_program, tmp_path):
    # Line numbers of a traceback are those of the page.
    fragments = tmp_path / page.name
    fragments.write_text(_fragments(page))
    _end(start_program([sys.executable, "-c", _RUN_PAGE, str(fragments)], stderr=subprocess.PIPE))


# --- programs -----------------------------------------------------------------------------------

# What each pair of a sender and a receiver imports, and whether it takes a GPU.
PAIRS = {
    "": ("numpy", False),
    "jax_": ("jax", False),
    "onnxruntime_": ("onnxruntime", False),
    "cupy_": ("cupy", True),
    "cuda_": ("cuda.bindings", True),
}


def test_every_program_is_run():
    paired = [f"{name}{side}.py" for name in PAIRS for side in ("sender", "receiver")]
    fleets = ["nats_client.py", "nats_server.py", "ray_actors.py"]  # test_fleets.py, test_ray.py
    taught = [block.program for block in blocks(TUTORIAL, "python")]
    served = [
        "client.py",
        "server.py",
        "embeddings_client.py",
        "embeddings_server.py",
        "weights.py",
    ]
    assert sorted(programs()) == sorted([*paired, *fleets, *taught, *served])


@pytest.mark.parametrize("name", PAIRS)
def test_sender_and_receiver(program, start_program, name):
    needed, on_gpu = PAIRS[name]
    if importlib.util.find_spec(needed.split(".")[0]) is None:
        pytest.skip(f"{needed} is not installed")
    if needed == "onnxruntime" and sys.version_info < (3, 11):
        pytest.skip("no ONNX Runtime with DLPack for Python 3.10")
    if on_gpu and not cuda.is_available():
        pytest.skip("no GPU")
    sender = start_program(program(f"{name}sender.py"), stderr=subprocess.PIPE)
    receiver = start_program(
        program(f"{name}receiver.py"), stdin=sender.stdout, stderr=subprocess.PIPE
    )
    # One is shown for two.
    shown = {"onnxruntime_": "jax_"}.get(name, name)
    assert _end(receiver) == output_of(f"python {shown}sender.py | python {shown}receiver.py")
    sender.stdout.close()
    sender.stdout = None
    _end(sender)


def test_sender_and_receiver_are_short():
    # The README promises them in few lines.
    known = programs()
    lines = known["sender.py"].splitlines() + known["receiver.py"].splitlines()
    assert len(lines) <= 30


def test_server_and_client(program, start_program):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = start_program([*program("server.py"), "127.0.0.1", str(port)], stderr=subprocess.PIPE)
    _wait_for_server(f"http://127.0.0.1:{port}/", server)
    client = program("client.py")
    for _ in range(3):
        process = start_program([*client, f"http://127.0.0.1:{port}/data"], stderr=subprocess.PIPE)
        assert _end(process) == output_of("python client.py http://127.0.0.1:8080/data")
    server.terminate()
    _, error = server.communicate(timeout=DEADLINE)
    assert server.returncode == 0, error


@pytest.mark.parametrize("arguments", [["4"], ["4", "tree"], ["1"]], ids=" ".join)
def test_weights_for_many(program, start_program, arguments):
    """It compares what each worker has got, in every round."""
    printed = _end(start_program([*program("weights.py"), *arguments], stderr=subprocess.PIPE))
    shown = output_of("python weights.py " + " ".join(["4", *arguments[1:]]))
    assert pattern(shown.replace("4 workers", f"{arguments[0]} workers")).fullmatch(printed)


def test_embeddings_and_four_clients_of_which_one_is_killed(program, start_program):
    """It is served, and gone before it fetches; its offer ends at the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = program("embeddings_server.py")
    server_text = Path(command[1]).read_text()
    assert server_text.count("timeout=30") == 1
    Path(command[1]).write_text(server_text.replace("timeout=30", "timeout=5"))
    server = start_program([*command, "127.0.0.1", str(port)], stderr=subprocess.PIPE)
    _wait_for_server(f"http://127.0.0.1:{port}/", server)
    client = program("embeddings_client.py")
    (shown,) = commands(ROOT / "docs" / "howto" / "named-arrays.md")
    texts = ["a red apple", "a red apricot"]
    assert shown.text.split("'")[1::2] == texts
    killed = Path(client[1]).with_name("killed.py")
    killed.write_text(
        Path(client[1])
        .read_text()
        .replace(
            "await fetch(connector, message)", "__import__('os').kill(__import__('os').getpid(), 9)"
        )
    )
    url = f"http://127.0.0.1:{port}/embed"
    processes = [
        start_program([sys.executable, str(path), url, *texts], stderr=subprocess.PIPE)
        for path in (client[1], killed, client[1], client[1])
    ]
    for process in processes:
        if process is processes[1]:
            assert process.wait(DEADLINE) == -signal.SIGKILL
        else:
            assert _end(process) == shown.output
    lines: list[str] = []
    while not lines or "did not end before its deadline" not in lines[-1]:
        lines.append(server.stderr.readline())
        assert lines[-1], lines  # the deadline of pytest-timeout stands behind this
    again = start_program([*client, url, *texts], stderr=subprocess.PIPE)
    assert _end(again) == shown.output
    server.terminate()
    _, error = server.communicate(timeout=DEADLINE)
    assert server.returncode == 0, error


def _wait_for_server(url: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        assert server.poll() is None, server.communicate()
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError as error:
            error.close()
            return  # it answers, if only that there is no such page
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail("the server does not answer")


# --- the tutorial -------------------------------------------------------------------------------


class Terminal:
    """A command of the tutorial, at work: what is shown beneath it is what it must print."""

    def __init__(self, start_program, command, folder: Path) -> None:
        self.shown = command.output.replace("^C", "")
        self.interrupted = "^C" in command.output
        name, *arguments = command.text.split()
        program = {"python": [], "nixl-connect": ["-m", "nixl_connect"]}[name]
        self.path = folder / f"terminal {time.monotonic_ns()}"
        with self.path.open("w") as file:
            self.process = start_program(
                [sys.executable, *program, *arguments],
                cwd=folder,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        # A reader goes on when the first line is there.
        until(lambda: "\n" in self.path.read_text(), DEADLINE)
        if self.interrupted:
            self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        status = self.process.wait(DEADLINE)
        printed = self.path.read_text()
        assert pattern(self.shown).fullmatch(printed), printed
        assert (status != 0) == (self.interrupted or "Error: " in self.shown)


def test_tutorial(start_program, tmp_path):
    """Each command is started where a reader starts it; those of one section end with it."""
    for block in blocks(TUTORIAL, "python"):
        (tmp_path / block.program).write_text(block.text)
    sections = itertools.groupby(commands(TUTORIAL), lambda command: command.block.section)
    for _, together in sections:
        terminals = []
        for command in together:
            terminals.append(Terminal(start_program, command, tmp_path))
            if terminals[-1].interrupted:
                terminals.pop().end()
        for terminal in terminals:
            terminal.end()

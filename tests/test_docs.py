"""Runs the Python of README.md and docs/: what readers are shown is what works.

A block whose first line names a file, such as ``# sender.py``, is a program of its own. The other
blocks of a page run in order as one program, in which ``await`` is allowed at the top level.
"""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from nixl_connect import cuda

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# No program may take longer, in seconds.
DEADLINE = 40.0
ENVIRONMENT = os.environ | {"PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROGRAM = re.compile(r"# (\w+\.py)\n")
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


def _blocks(page: Path) -> Iterator[tuple[str | None, int, str]]:
    """Yield the name, if it is a program, the line and the text of each Python block of a page."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        named = _PROGRAM.match(match[1])
        yield named and named[1], text.count("\n", 0, match.start(1)), match[1]


def _fragments(page: Path) -> str:
    """Return the blocks of a page that are no programs, on the lines that they have in the page."""
    source = ""
    for name, line, text in _blocks(page):
        if name is None:
            source += "\n" * (line - source.count("\n")) + text
    return source


def _programs() -> dict[str, str]:
    """Return the text of each program by name."""
    programs = {}
    for page in PAGES:
        for name, _, text in _blocks(page):
            if name is not None:
                assert name not in programs, f"{page}: there are two programs {name}"
                programs[name] = text
    return programs


@pytest.fixture
def program(tmp_path):
    """Return a function that writes a program to a file and returns the command that runs it."""
    programs = _programs()

    def write(name: str) -> list[str]:
        (tmp_path / name).write_text(programs[name])
        return [sys.executable, str(tmp_path / name)]

    return write


@pytest.fixture
def start():
    """Start processes that are gone after the test."""
    started: list[subprocess.Popen] = []

    def popen(command: list[str], **options) -> subprocess.Popen:
        process = subprocess.Popen(command, cwd="/", env=ENVIRONMENT, text=True, **options)
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.wait(DEADLINE)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


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
def test_page(page, start, tmp_path):
    # Line numbers of a traceback are those of the page.
    fragments = tmp_path / page.name
    fragments.write_text(_fragments(page))
    _end(
        start(
            [sys.executable, "-c", _RUN_PAGE, str(fragments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )


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
    fleets = ["nats_client.py", "nats_server.py", "ray_actors.py"]  # test_fleets.py
    assert sorted(_programs()) == sorted([*paired, *fleets, "client.py", "server.py"])


@pytest.mark.parametrize("name", PAIRS)
def test_sender_and_receiver(program, start, name):
    needed, on_gpu = PAIRS[name]
    if importlib.util.find_spec(needed.split(".")[0]) is None:
        pytest.skip(f"{needed} is not installed")
    if on_gpu and not cuda.is_available():
        pytest.skip("no GPU")
    sender = start(program(f"{name}sender.py"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    receiver = start(
        program(f"{name}receiver.py"),
        stdin=sender.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert _end(receiver) == ("sum: 499500\n" if name else "sum: 499999500000\n")
    sender.stdout.close()
    sender.stdout = None
    _end(sender)


def test_sender_and_receiver_are_short():
    # The README promises them in few lines.
    programs = _programs()
    lines = programs["sender.py"].splitlines() + programs["receiver.py"].splitlines()
    assert len(lines) <= 30


def test_server_and_client(program, start):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = start(
        [*program("server.py"), "127.0.0.1", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _wait_for_server(f"http://127.0.0.1:{port}/", server)
    client = program("client.py")
    for _ in range(3):
        process = start(
            [*client, f"http://127.0.0.1:{port}/data"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert _end(process) == "sum: 499999500000\n"
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


def test_readme_links():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target

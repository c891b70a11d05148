"""Processes of tests: peers that run peer.py, each with a connector of its own."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nixl_connect as nc

HERE = Path(__file__).parent
# Every wait in a test ends, at the latest after this many seconds.
DEADLINE = 20.0


def until(
    condition: Callable[[], object], seconds: float = DEADLINE, *, collect: bool = False
) -> None:
    """Wait for a condition that no event announces; fail when it does not come true.

    With `collect` garbage is collected before each look but the first.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        if collect:
            gc.collect()
        time.sleep(0.01)


def steady(look: Callable[[], Any], seconds: float = 0.3) -> Any:
    """Return what `look` returns, once that has been the same for a while.

    UCX connects and closes by itself, some time after what it was asked for.
    """
    end = time.monotonic() + DEADLINE
    seen, since = look(), time.monotonic()
    while seen is None or time.monotonic() < since + seconds:
        assert time.monotonic() < end, "it does not stand still"
        time.sleep(0.01)
        now = look()
        if now != seen:
            seen, since = now, time.monotonic()
    return seen


def open_files(pid: int | str = "self") -> int:
    """Return how many file descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def run_python(
    *arguments: str, timeout: float = 50, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, away from the checkout, and fail unless it succeeds."""
    run = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd="/",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return run


def told(made: dict[str, Any]) -> nc.RdmaMetadata:
    """Return the metadata in a peer's answer."""
    return nc.RdmaMetadata.model_validate(made["metadata"])


def opened(folder: Path) -> None:
    """Let other users go to a folder that pytest made for this one."""
    end = Path(tempfile.gettempdir())
    for path in (folder, *folder.parents):
        if path in (end, Path("/")):
            return
        path.chmod(0o755)


def environment_of(name: str) -> str:
    """Return the interpreter of an environment of its own, made once, or skip the test."""
    import pytest

    sys.path.append(str(HERE.parent / "bench"))
    from harness.environments import UnavailableError, python_of

    if name == "dynamo_next" and sys.version_info < (3, 11):
        pytest.skip("has no release for this version of Python")
    try:
        return python_of(name)
    except UnavailableError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


def run_tests(
    path: Path,
    *arguments: str,
    python: str = sys.executable,
    deadline: float = 280,
    **environment: str,
) -> str:
    """Run tests in a process of their own, and fail with what they print; else return that."""
    run = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path), *arguments],
        check=False,
        env=os.environ | environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=deadline,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


class PeerError(Exception):
    """A command failed in the peer; `kind` is the name of its error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Lines:
    """A process that carries out commands: JSON, one to a line, on standard input and output.

    Parameters
    ----------
    command : sequence of str
        What to run.
    environment : dict of str to str
        All its variables.
    deadline : float
        Seconds for each answer, if none are named, and for its end.
    """

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], deadline: float = DEADLINE
    ) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", env=environment
        )
        self._deadline = deadline
        self._buffer = b""

    def send(self, do: str, **arguments: Any) -> None:
        """Send a command and do not wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do} | arguments).encode() + b"\n")
        self.process.stdin.flush()

    def reply(self, deadline: float | None = None) -> dict[str, Any]:
        """Return the next reply, an error or not."""
        line = self._line(deadline)
        while not line.startswith(b"{"):  # UCX logs to the same stream
            line = self._line(deadline)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def answer(self, deadline: float | None = None) -> Any:
        """Return the next answer: what is in the reply."""
        return self.reply(deadline)

    def _line(self, deadline: float | None) -> bytes:
        assert self.process.stdout is not None
        end = time.monotonic() + (self._deadline if deadline is None else deadline)
        while b"\n" not in self._buffer:
            left = max(0, end - time.monotonic())
            ready, _, _ = select.select([self.process.stdout], [], [], left)
            if not ready:
                raise TimeoutError("the process does not answer")
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError(f"the process ended with {self.process.wait(5)}")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def do(self, do: str, deadline: float | None = None, **arguments: Any) -> Any:
        """Send a command and return its answer."""
        self.send(do, **arguments)
        return self.answer(deadline)

    def end(self) -> None:
        """End the process; it must leave by itself. Idempotent."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended before it read what it was told
            self.process.stdin.close()
        try:
            self.process.wait(self._deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(self._deadline)
            raise
        finally:
            self.process.stdout.close()


class Peer(Lines):
    """A process that runs peer.py, by a command that stands before its own, if any."""

    def __init__(
        self,
        environment: dict[str, str],
        prefix: Sequence[str] = (),
        program: Path = HERE / "peer.py",
    ) -> None:
        super().__init__([*prefix, sys.executable, str(program)], os.environ | environment)

    def answer(self, deadline: float | None = None) -> dict[str, Any]:
        """Return the next answer, or raise its error."""
        reply = self.reply(deadline)
        if "error" in reply:
            raise PeerError(reply["error"], reply["text"])
        return reply

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def stop(self) -> None:
        """Stop the process, as a debugger would, every thread of it; `resume` lets it go on."""
        self.process.send_signal(signal.SIGSTOP)
        end = time.monotonic() + DEADLINE
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            while (task / "stat").read_text().rpartition(")")[2].split()[0] != "T":
                assert time.monotonic() < end, "the peer does not stop"

    def resume(self) -> None:
        """Let a stopped process go on."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End the process, stopped or not; it must leave by itself. Idempotent."""
        self.resume()  # nothing where it has ended
        super().end()

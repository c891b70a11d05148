"""Processes of tests: peers that run peer.py, each with a connector of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Every wait in a test ends, at the latest after this many seconds.
DEADLINE = 20.0


def until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait for a condition that no event announces; fail when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def open_files(pid: int | str = "self") -> int:
    """Return how many file descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def run_tests(path: Path, *arguments: str, python: str = sys.executable, **environment: str) -> str:
    """Run tests in a process of their own, and fail with what they print; else return that."""
    run = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path), *arguments],
        check=False,
        env=os.environ | environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


class PeerError(Exception):
    """A command failed in the peer; `kind` is the name of its error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Peer:
    """A process that runs peer.py, by a command that stands before its own, if any."""

    def __init__(
        self,
        environment: dict[str, str],
        prefix: Sequence[str] = (),
        program: Path = HERE / "peer.py",
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env=os.environ | environment,
        )
        self._buffer = b""

    def send(self, do: str, **arguments: Any) -> None:
        """Send a command and do not wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do} | arguments).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, deadline: float = DEADLINE) -> dict[str, Any]:
        """Return the next answer."""
        line = self._line(deadline)
        while not line.startswith(b"{"):  # UCX logs to the same stream
            line = self._line(deadline)
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"], answer["text"])
        return answer

    def _line(self, deadline: float) -> bytes:
        assert self.process.stdout is not None
        end = time.monotonic() + deadline
        while b"\n" not in self._buffer:
            left = max(0, end - time.monotonic())
            ready, _, _ = select.select([self.process.stdout], [], [], left)
            if not ready:
                raise TimeoutError("the peer does not answer")
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError(f"the peer ended with {self.process.wait(5)}")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def do(self, do: str, deadline: float = DEADLINE, **arguments: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        self.send(do, **arguments)
        return self.answer(deadline)

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
        """End the process; it must leave by itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is None:
            self.resume()
            self.process.stdin.close()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            finally:
                self.process.stdout.close()
        else:
            self.process.stdin.close()
            self.process.stdout.close()

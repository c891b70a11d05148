"""Processes that carry out commands: JSON, one to a line, on standard input and output."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from typing import Any


class Lines:
    """A process that answers each command with a result or an error.

    Parameters
    ----------
    command : list of str
        What to run.
    environment : dict of str to str
        All its variables.
    deadline : float
        Seconds for each answer, and for its end.
    """

    def __init__(self, command: list[str], environment: dict[str, str], deadline: float) -> None:
        self._deadline = deadline
        self._buffer = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", env=environment
        )

    def send(self, do: str, **arguments: Any) -> None:
        """Send a command and do not wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do} | arguments).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return the next answer's result. What UCX logs on the same stream is passed over."""
        while True:
            line = self._line()
            if line.startswith(b'{"'):
                answer = json.loads(line)
                if "error" in answer:
                    raise AssertionError(answer["error"])
                return answer["result"]

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        end = time.monotonic() + self._deadline
        while b"\n" not in self._buffer:
            left = max(0.0, end - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError("no answer in time")
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError(f"the process ended with {self._process.wait(self._deadline)}")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def do(self, do: str, **arguments: Any) -> Any:
        """Send a command and return its result."""
        self.send(do, **arguments)
        return self.answer()

    def end(self) -> None:
        """End the process, by itself if it can. Idempotent."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(self._deadline)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(self._deadline)
                raise
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

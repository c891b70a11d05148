"""Runs ``nixl-connect``: commands to their end, and servers of ``perf``."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "import sys; from nixl_connect.cli import main; sys.exit(main())"]
DEADLINE = 50


@pytest.fixture
def serve():
    """Return a function that starts a server on a free port and returns process and port."""
    started = []

    def start(*arguments, prefix=(), environment=None, host="127.0.0.1"):
        process = subprocess.Popen(
            [*prefix, *COMMAND, "perf", "server", "--port", "0", "--size", "16MiB", *arguments],
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        line = process.stdout.readline()
        match = re.fullmatch(rf"listening on {host} port (\d+), with [^;]+B; .*\n", line)
        assert match, (line, process.poll() is not None and process.communicate())
        return process, match[1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=DEADLINE)


def finished(
    command: list[str], folder: Path | None = None, **environment: str
) -> tuple[int, str, str]:
    """Run a command to its end; return its exit status, what it printed, and its errors."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


def client(*arguments, prefix=(), environment=None):
    """Run a client; return what it printed, and its errors."""
    command = [*prefix, *COMMAND, "perf", "client", "--seconds", "0.05", *arguments]
    return finished(command, **(environment or {}))

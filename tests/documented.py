"""Fixtures that run the documentation's programs."""

import os
import subprocess
import sys

import pytest
from pages import programs

# No program may take longer, in seconds.
DEADLINE = 40.0
ENVIRONMENT = os.environ | {"PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def program(tmp_path):
    """Return a function that writes a program to a file and returns the command that runs it."""
    known = programs()

    def write(name: str) -> list[str]:
        (tmp_path / name).write_text(known[name])
        return [sys.executable, str(tmp_path / name)]

    return write


@pytest.fixture
def start_program():
    """Start processes that are gone after the test."""
    started: list[subprocess.Popen] = []

    def popen(command: list[str], **options) -> subprocess.Popen:
        options = {"cwd": "/", "env": ENVIRONMENT, "stdout": subprocess.PIPE} | options
        process = subprocess.Popen(command, text=True, **options)
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.wait(DEADLINE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

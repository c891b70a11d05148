"""The floor: `floor.c` and `pair.c`, built and run as one subject among others."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.pair import ROOT, Result, SubjectError

_FOLDER = Path(__file__).parent
SOURCES = [_FOLDER / name for name in ("floor.c", "pair.c", "capi.c")]
_BUILD = ROOT.parent / "build" / "bench"
_START = 120.0
_END = 20.0
_COMMANDS = {"cycle": "transfer", "sleeping": "sleep", "prepared": "repost", "pair": "pair"}


def build(folder: Path = _BUILD) -> Path:
    """Return the program; compile it with ``$CC``, or ``cc``, if a source is newer."""
    program = folder / "floor"
    newest = max(source.stat().st_mtime for source in [*SOURCES, _FOLDER / "capi.h"])
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    folder.mkdir(parents=True, exist_ok=True)
    # Under another name first: a second harness never runs half a program.
    made = program.with_suffix(f".{os.getpid()}")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = ["-O2", "-std=gnu11", *map(str, SOURCES), "-o", str(made), "-ldl", "-pthread"]
    try:
        subprocess.run([*compiler, *flags], check=True, capture_output=True, text=True)
    except OSError as error:
        raise SubjectError(f"floor: no C compiler: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SubjectError(f"floor: {shlex.join(error.cmd)} failed\n{error.stderr}") from None
    made.replace(program)
    return program


class Floor:
    """NIXL's C API alone: two processes that spin while they work and sleep between workloads.

    It offers four workloads. ``cycle`` makes a request each round, its descriptor lists included
    (figure ``read``), and waits until the passive side has its notification (``told``, ``cycle``);
    both sides use one registered block whatever ``memory`` says, nothing is serialised and nothing
    awaited, so there is no ``create``. ``sleeping`` is the same, but each side sleeps until the
    other has something for it. ``prepared`` posts one request again and again (``repost``).
    ``pair`` does whole operations between two agents of one process, in whatever ``form``.

    The processes end with the thread that made this object, at the latest.

    Parameters
    ----------
    path : str, optional
        File name of ``libnixl_capi.so``; without it the one that this library would load first.
    environment : dict of str to str
        Variables to add.
    """

    name = "floor"

    def __init__(self, path: str | None = None, environment: dict[str, str] | None = None) -> None:
        self.version = "NIXL C API"
        if path is None:
            from nixl_connect.backend import library

            path, source, version = library.candidates()[0]
            self.version += f" {version or 'unversioned'} ({source})"
        program = build()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._control, theirs = socket.socketpair()
        self._answers = self._control.makefile("rb")
        with theirs:
            self._process = subprocess.Popen(
                [program, path],
                stdin=theirs,
                stdout=theirs,
                stderr=self._said,
                env={**os.environ, **(environment or {})},
            )
        try:
            self._ask("transfer 1 1 1", _START)  # whatever cannot work fails here
        except BaseException:
            self.close()
            raise

    def run(self, workload: str, arguments: dict[str, Any], timeout: float) -> Result:
        """Run a workload, and return its figures."""
        if workload not in _COMMANDS:
            raise SubjectError(f"floor: does not offer {workload!r}")
        size, rounds = arguments["size"], arguments["rounds"]
        kind = _COMMANDS[workload]
        if workload == "pair" and arguments["memory"] == "new":
            kind = "pair-new"
        command = f"{kind} {size} {arguments.get('count', 1)} {rounds}"
        answer = self._ask(command, timeout + _END)
        return Result(answer["samples"], answer["cost"])

    def _ask(self, command: str, timeout: float) -> dict[str, Any]:
        """Return the answer to a command. Whatever goes wrong ends the processes."""
        self._control.settimeout(timeout)
        try:
            self._control.sendall(f"{command}\n".encode())
            line = self._answers.readline()
        except TimeoutError:
            self._process.kill()
            raise SubjectError(f"floor: no answer in time to {command!r}") from None
        except OSError:
            line = b""
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._finish()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        raise SubjectError(f"floor: ended with {self._process.returncode}\n{said}")

    def _signal(self, number: signal.Signals) -> None:
        # The program puts its two processes into a group of its own.
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def pause(self) -> None:
        """Stop the processes while others are measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the processes go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the processes."""
        self.resume()
        self._answers.close()
        self._control.close()
        self._finish()
        self._said.close()

    def _finish(self) -> None:
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

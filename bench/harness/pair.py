"""The processes of one subject, as the harness's own process sees them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import link
from harness.work import Samples
from harness.workloads import WORKLOADS

ROOT = Path(__file__).parents[1]
# NumPy's threads for linear algebra spin when they start.
_VARIABLES = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
_START = 120.0
_END = 20.0


class SubjectError(Exception):
    """A subject failed; the text is what its processes said."""


class Pair:
    """A passive process, or several, and an active one.

    Parameters
    ----------
    backend : str
        Module of `harness.backends`.
    python : str
        Interpreter, of the environment that has what the backend imports.
    passives : int
        How many passive processes.
    environment : dict of str to str
        Variables to add.
    """

    def __init__(
        self,
        backend: str,
        python: str = sys.executable,
        passives: int = 1,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = backend
        self._controls: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        links = [socket.socketpair() for _ in range(passives)]
        variables = {**os.environ, **_VARIABLES, **(environment or {})}
        try:
            for mine, _ in links:
                self._spawn(python, backend, "passive", [mine], variables)
            self._spawn(python, backend, "active", [theirs for _, theirs in links], variables)
            self.version = self._answers(_START)[0]["version"]
        except BaseException:
            self.close()
            raise
        finally:
            for pair in links:
                for end in pair:
                    end.close()

    def _spawn(
        self, python: str, backend: str, role: str, links: list[socket.socket], env: dict[str, str]
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fds = [theirs.fileno(), *(end.fileno() for end in links)]
            self._processes.append(
                subprocess.Popen(
                    [python, "-m", "harness.side", backend, role, *map(str, fds)],
                    pass_fds=fds,
                    env=env,
                    stdin=subprocess.DEVNULL,
                )
            )
        self._controls.append(ours)

    def _answers(self, timeout: float) -> list[dict[str, Any]]:
        """Return one answer of each process."""
        answers = []
        for control in self._controls:
            control.settimeout(timeout)
            try:
                answer = json.loads(link.receive(control))
            except (OSError, EOFError) as error:
                raise SubjectError(f"{self.name}: {error or 'no answer in time'}") from None
            if "error" in answer:
                raise SubjectError(f"{self.name}:\n{answer['error']}")
            answers.append(answer)
        return answers

    def run(self, workload: str, arguments: dict[str, Any], timeout: float) -> Result:
        """Run a workload on all processes, and return its figures."""
        request = {"workload": workload, "arguments": arguments, "timeout": timeout}
        for control in self._controls:
            link.send(control, json.dumps(request).encode())
        *passives, active = self._answers(timeout + _END)
        return Result(
            WORKLOADS[workload].combine(passives[0]["samples"], active["samples"]),
            {
                side: {name: answer[name] for name in ("user", "system", "grown")}
                for side, answer in (("passive", passives[0]), ("active", active))
            },
        )

    def pause(self) -> None:
        """Stop the processes, which may spin when idle, while others are measured."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the processes go on."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the processes."""
        self.resume()
        for control in self._controls:
            control.close()
        for process in self._processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Result:
    """What one run of a workload gave.

    Parameters
    ----------
    samples : dict of str to list of float
        Seconds, by figure.
    cost : dict
        By side: seconds of processor time, ``user`` and ``system``, and bytes ``grown``.
    """

    def __init__(self, samples: Samples, cost: dict[str, dict[str, float]]) -> None:
        self.samples = samples
        self.cost = cost

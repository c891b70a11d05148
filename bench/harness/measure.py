"""Runs the cases: subjects take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

from harness.cases import Case
from harness.environments import UnavailableError, python_of
from harness.floor import Floor
from harness.pair import Pair, SubjectError

# Modules of `backends`, whose names may not hide what they import.
_MODULES = {
    "nixl_connect": "nixl_connect_",
    "nixl": "nixl_python",
    "dynamo": "dynamo",
    "ucxx": "ucxx_",
    "zmq": "zmq_",
    "shm": "shm",
    "plain": "plain",
    "pickle5": "pickle5",
    "safetensors": "safetensors_",
}
# Those that sleep for milliseconds in every operation.
_SLOW = {"dynamo"}
_TIMEOUT = 300.0
_IMPORTS = {"nixl_connect": "nixl_connect", "dynamo": "dynamo.nixl_connect"}

FIRST = "first operation"
# In a process of its own: prints the longest time that other tasks had to wait.
_FIRST = """
import asyncio, time
import nixl_connect as nc

async def main():
    stalls, done = [], False

    async def tick():
        last = time.monotonic()
        while not done:
            await asyncio.sleep(0)
            stalls.append(time.monotonic() - last)
            last += stalls[-1]

    task = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    stalls.clear()
    async with nc.Connector() as connector:
        async with await connector.create_readable(nc.Descriptor(bytearray(8))) as readable:
            await asyncio.sleep(0)
            readable.metadata()
            await asyncio.sleep(0)
        longest = max(stalls)
    done = True
    await task
    print(longest)

asyncio.run(main())
"""

Figures = dict[str, Any]
"""Of one case and subject: for each figure its median, p99 and number of samples; and its cost."""


class Measurement:
    """What a run has measured.

    Attributes
    ----------
    results : dict
        By case and subject: `Figures`.
    versions : dict
        By subject: what it is.
    missing : dict
        By subject: why it, or a case of it, was not measured.
    samples : dict
        Of the cases in `keep`, by case and subject: all samples.
    """

    def __init__(self, keep: tuple[str, ...] = ("history",)) -> None:
        self.results: dict[str, dict[str, Figures]] = {}
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.samples: dict[str, dict[str, dict[str, list[float]]]] = {}
        self._keep = keep

    def run(self, cases: list[Case], only: set[str]) -> None:
        """Run cases on the subjects named in `only`. Cases of one setting share processes."""
        settings: dict[tuple[Any, ...], list[Case]] = {}
        for case in cases:
            key = (case.passives, *sorted(case.environment.items()))
            settings.setdefault(key, []).append(case)
        for group in settings.values():
            self._run_group(group, only)

    def imports(self, only: set[str]) -> dict[str, float]:
        """Return how many seconds it takes to import those in `only` of which that is asked.

        And, as `FIRST`, how long the first operation of a process holds up its event loop.
        """
        took = {
            name: _import_time(module, python_of(_MODULES[name]))
            for name, module in _IMPORTS.items()
            if name in only and name not in self.missing
        }
        if "nixl_connect" in took:
            took[FIRST] = _first_stall(python_of(_MODULES["nixl_connect"]))
        return took

    def _run_group(self, group: list[Case], only: set[str]) -> None:
        names = [
            name
            for name in dict.fromkeys(name for case in group for name in case.subjects)
            if name in only
        ]
        pairs: dict[str, Any] = {}
        try:
            for name in names:
                pair = self._start(name, group[0])
                if pair is not None:
                    pairs[name] = pair
                    self.versions[name] = pair.version
                    pair.pause()
            for case in group:
                self._run_case(case, pairs)
        finally:
            for pair in pairs.values():
                pair.close()

    def _start(self, name: str, case: Case) -> Any:
        try:
            if name == "floor":
                return Floor(environment=case.environment)
            module = _MODULES[name]
            return Pair(module, python_of(module), case.passives, case.environment)
        except (UnavailableError, SubjectError) as error:
            self.missing[name] = str(error)
            _say(f"{name} is left out: {error}")
            return None

    def _run_case(self, case: Case, pairs: dict[str, Any]) -> None:
        gathered: dict[str, dict[str, list[float]]] = {}
        costs: dict[str, list[dict[str, dict[str, float]]]] = {}
        failed: list[str] = []
        began = time.monotonic()
        # The first turn warms up: it is left out.
        for turn in range(case.turns + (case.turns > 1)):
            for name in case.subjects:
                if name not in pairs:
                    continue
                arguments = dict(case.arguments)
                if "rounds" in arguments and name in _SLOW:
                    arguments["rounds"] = max(1, arguments["rounds"] // case.slow)
                pairs[name].resume()
                try:
                    result = pairs[name].run(case.workload, arguments, _TIMEOUT)
                except SubjectError as error:
                    self.missing[f"{name}, {case.name}"] = str(error).strip().splitlines()[-1]
                    _say(f"{name}, {case.name}: {error}")
                    pairs.pop(name).close()
                    # A new one for the next case; this one is left out.
                    failed.append(name)
                    continue
                pairs[name].pause()
                if turn or case.turns == 1:
                    for figure, samples in result.samples.items():
                        gathered.setdefault(name, {}).setdefault(figure, []).extend(samples)
                    costs.setdefault(name, []).append(result.cost)
        for name in failed:
            gathered.pop(name, None)
            fresh = self._start(name, case)
            if fresh is not None:
                pairs[name] = fresh
                fresh.pause()
        self.results[case.name] = {
            name: {"figures": _summaries(figures), "cost": costs[name]}
            for name, figures in gathered.items()
        }
        if case.name in self._keep:
            self.samples[case.name] = gathered
        _say(f"{case.name:<18} {time.monotonic() - began:6.1f} s  " + _brief(gathered))


def _summaries(figures: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {
        figure: {
            "median": statistics.median(samples),
            "p99": sorted(samples)[int(len(samples) * 0.99)],
            "n": len(samples),
        }
        for figure, samples in figures.items()
        if samples
    }


def _brief(gathered: dict[str, dict[str, list[float]]]) -> str:
    parts = []
    for name, figures in gathered.items():
        shown = " ".join(
            f"{figure} {statistics.median(samples) * 1e6:.0f}"
            for figure, samples in figures.items()
            if samples
        )
        parts.append(f"{name}: {shown}")
    return "; ".join(parts) + " us"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _compiled() -> dict[str, str]:
    """Return an environment in which modules that were compiled once stay so."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def _first_stall(python: str, times: int = 9) -> float:
    """Return how long a first operation holds a loop up, in the process that was disturbed least.

    A machine that is shared takes the processor away for tens of milliseconds now and then.
    """
    command, environment = [python, "-c", _FIRST], _compiled()
    runs = [
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        for _ in range(times)
    ]
    # UCX logs to the standard output, too.
    return min(float(run.stdout.split()[-1]) for run in runs)


def _import_time(module: str, python: str, times: int = 15) -> float:
    """Return the median of what an import adds to a bare start, compiled modules at hand."""
    added = []
    environment = _compiled()
    for _ in range(times):
        took = []
        for code in ("pass", f"import {module}"):
            began = time.monotonic()
            subprocess.run([python, "-c", code], check=True, capture_output=True, env=environment)
            took.append(time.monotonic() - began)
        added.append(took[1] - took[0])
    return statistics.median(added)

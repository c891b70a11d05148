"""Two warm connectors for the hot paths, and a comparison that a noisy machine does not fool.

Just before and after each benchmark a yardstick is measured: work of the interpreter, the allocator
and the processor that has nothing to do with this package. What is compared with the stored
baseline is the ratio of the two, each at its fastest: a machine that is slow today, or busy, is so
for both. With ``--check-baseline`` a benchmark that got dearer than its baseline allows fails the
run; ``--store-baseline`` stores the ratios of this Python version.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nixl_connect as nc

_BASELINE = Path(__file__).with_name("baseline.json")
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# How much dearer than its baseline a benchmark may be: ratios of the fastest of many rounds stay
# within a tenth or two on one machine, and differ more between kinds of processors.
_ALLOWED = 1.5
# Those that wait for other threads depend on where the scheduler puts these.
_WAITING = {"test_begin", "test_whole_cycle_asyncio"}
_ALLOWED_WAITING = 3.0
# The clock's own cost, in yardsticks: it weighs on what takes tenths of a microsecond.
_CLOCK = 0.02
_ratios: dict[str, float] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("baseline")
    group.addoption("--check-baseline", action="store_true", help="fail what got dearer")
    group.addoption("--store-baseline", action="store_true", help="store what was measured")


@pytest.fixture(scope="session")
def connectors() -> Iterator[tuple[nc.Connector, nc.Connector]]:
    """Return an owner and a mover whose connection is made."""
    source, target = nc.Descriptor(b"warm"), nc.Descriptor(bytearray(4))
    with nc.Connector() as owner, nc.Connector() as mover:
        readable = owner.create_readable_blocking(source)
        read = mover.begin_read_blocking(readable.metadata(), target)
        read.wait_for_completion_blocking(10)
        readable.wait_for_completion_blocking(10)
        yield owner, mover


def _yardstick() -> float:
    """Return the fewest seconds that a fixed piece of work takes now."""
    fastest = float("inf")
    for _ in range(200):
        began = time.perf_counter()
        table = {str(i): [i, i + 1] for i in range(100)}
        sum(pair[1] for pair in table.values())
        fastest = min(fastest, time.perf_counter() - began)
    return fastest


@pytest.fixture(autouse=True)
def _compared(request: pytest.FixtureRequest) -> Iterator[None]:
    """Note the ratio of a benchmark to the yardstick, unless its cost is another process's."""
    before = _yardstick()
    yield
    benchmark: Any = request.node.funcargs.get("benchmark")
    if benchmark is not None and benchmark.stats is not None:
        yardstick = min(before, _yardstick())
        _ratios[request.node.name] = benchmark.stats.stats.min / yardstick


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Store the ratios, or compare them."""
    stored = json.loads(_BASELINE.read_text()) if _BASELINE.exists() else {}
    if session.config.getoption("--store-baseline"):
        stored[_VERSION] = {name: round(ratio, 3) for name, ratio in sorted(_ratios.items())}
        _BASELINE.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    if session.config.getoption("--check-baseline"):
        baseline = stored.get(_VERSION)
        if baseline is None:
            print(f"\nno baseline for Python {_VERSION}: nothing was compared")
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
            return
        print(f"\n{'ratio':>9}{'baseline':>10}  (to the yardstick)")
        for name, ratio in sorted(_ratios.items()):
            known = baseline.get(name)
            allowed = _ALLOWED_WAITING if name in _WAITING else _ALLOWED
            dearer = known is not None and ratio > allowed * known + _CLOCK
            shown = "new" if known is None else f"{known:.3f}"
            print(f"{ratio:9.3f}{shown:>10}  {name}{'  DEARER' if dearer else ''}")
            if dearer:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

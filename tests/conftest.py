"""Fixtures: peers in processes of their own, connectors, and the count of what is left behind."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import peer as peer_module
import pytest
from commands import serve  # noqa: F401, a fixture
from documented import program, start_program  # noqa: F401, fixtures
from processes import HERE, Peer, environment_of, open_files

import nixl_connect as nc
from nixl_connect._native import operation
from nixl_connect.engine import engine
from nixl_connect.peers import ledger

# A shell that starts something in the background has it ignore Ctrl-C, which processes inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("nixl_connect", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("nixl_connect")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """Note what came of tests that stand for a row of the documentation (tools/protocols.py)."""
    report = yield
    told = os.environ.get("PROTOCOLS")
    if told and call.when == "call" and not report.skipped:
        for marker in item.iter_markers("protocol"):
            with Path(told).open("a") as file:
                file.write(json.dumps([*marker.args, report.passed]) + "\n")
    return report


@pytest.fixture(scope="session")
def content() -> Callable[[int, int], Any]:
    """Bytes that follow from a seed, the same in every process."""
    return peer_module.content


@pytest.fixture(scope="session")
def digest() -> Callable[[Any], str]:
    """SHA-256 of an array's bytes."""
    return peer_module.digest


@pytest.fixture(scope="session")
def pythons() -> dict[str, str]:
    """The interpreters of the two libraries: that of the tests, and one of an environment made."""
    return {"nixl_connect": sys.executable, "dynamo": environment_of("dynamo")}


@pytest.fixture
def keys_name_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are taken for those of network devices, each of which says which memory it is for."""
    monkeypatch.setattr(ledger, "names_none", lambda key: False)


@pytest.fixture
def start_peer() -> Iterator[Callable[..., Peer]]:
    """Start peers; each has a connector with the given name, options and environment."""
    peers: list[Peer] = []

    def start(
        name: str | None = None, environment: dict[str, str] | None = None, **options: Any
    ) -> Peer:
        peer = Peer(environment or {})
        peers.append(peer)
        peer.do("connect", name=name, options=options)
        return peer

    yield start
    for peer in peers:
        peer.end()


@pytest.fixture
def start_forking() -> Iterator[Callable[..., Peer]]:
    """Start peers that fork, and become other programs, with the given environment."""
    peers: list[Peer] = []

    def start(**environment: str) -> Peer:
        peer = Peer(environment, program=HERE / "forking.py")
        peers.append(peer)
        peer.do("connect")
        return peer

    yield start
    for peer in peers:
        peer.end()


@pytest.fixture
def peer(start_peer: Callable[..., Peer]) -> Peer:
    """One peer, with a connector of default options."""
    return start_peer()


@pytest.fixture
def make_connector() -> Iterator[Callable[..., nc.Connector]]:
    """Make connectors that are closed after the test."""
    connectors: list[nc.Connector] = []

    def make(*arguments: Any, **options: Any) -> nc.Connector:
        options.setdefault("quarantine", 0.2)
        connector = nc.Connector(*arguments, **options)
        connectors.append(connector)
        return connector

    yield make
    for connector in connectors:
        connector.close_blocking()


@pytest.fixture
def connector(make_connector: Callable[..., nc.Connector]) -> nc.Connector:
    """One connector, with a short quarantine."""
    return make_connector()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for sockets: for this user alone, with a path that is short enough."""
    made = tmp_path_factory.mktemp("m")
    made.chmod(0o700)
    return made


def _threads() -> list[str]:
    """Return what the process's threads are called, and which is which."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.append(f"{(task / 'comm').read_text().strip()} ({task.name})")
    return found


@pytest.fixture(scope="session")
def _warm() -> tuple[list[str], int]:
    """Threads and descriptors of a process that has used NIXL and uvloop once: they keep some."""
    if importlib.util.find_spec("uvloop"):
        importlib.import_module("uvloop").new_event_loop().close()
    for _ in range(2):
        with nc.Connector() as connector:
            connector._open()
    gc.collect()
    return _threads(), open_files()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Assert that a test leaves no thread, no descriptor, no engine and no memory held."""
    request.getfixturevalue("_warm")
    before = _threads(), open_files()
    yield
    end = time.monotonic() + 5
    while True:
        after = _threads(), open_files()
        live = [item.name for item in engine.engines() if not item.closed]
        held = [item.name for item in engine.engines() if item.keeper.kept[0]]
        records = operation.live()
        counts = len(after[0]) <= len(before[0]) and after[1] <= before[1] and records == 0
        if counts and not live and not held:
            return
        if time.monotonic() > end:
            break
        gc.collect()  # dear, so only where something is left
        time.sleep(0.01)
    pytest.fail(
        f"left behind: threads {sorted(set(after[0]) - set(before[0]))} where "
        f"{sorted(set(before[0]) - set(after[0]))} have ended, {after[1] - before[1]} descriptors, "
        f"{records} native records, open engines {live}, engines that hold memory {held}"
    )

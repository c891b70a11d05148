"""Fixtures: peers in processes of their own, connectors, and the count of what is left behind."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

import nixl_connect as nc
from nixl_connect import engine
from nixl_connect._native import operation

hypothesis.settings.register_profile("nixl_connect", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("nixl_connect")

HERE = Path(__file__).parent
# Every wait in a test ends, at the latest after this many seconds.
DEADLINE = 20.0


class PeerError(Exception):
    """A command failed in the peer; `kind` is the name of its error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Peer:
    """A process that runs peer.py."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "peer.py")],
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
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"], answer["text"])
        return answer

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


def _load_peer_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nixl_connect_test_peer", HERE / "peer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_peer_module = _load_peer_module()


@pytest.fixture(scope="session")
def content() -> Callable[[int, int], Any]:
    """Bytes that follow from a seed, the same in every process."""
    return _peer_module.content


@pytest.fixture(scope="session")
def digest() -> Callable[[Any], str]:
    """SHA-256 of an array's bytes."""
    return _peer_module.digest


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


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="session")
def _warm() -> tuple[int, int]:
    """Threads and descriptors of a process that has used NIXL and uvloop once: they keep some."""
    if importlib.util.find_spec("uvloop"):
        importlib.import_module("uvloop").new_event_loop().close()
    for _ in range(2):
        with nc.Connector() as connector:
            connector._open()
    gc.collect()
    return _threads(), _descriptors()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Assert that a test leaves no thread, no descriptor, no engine and no memory held."""
    request.getfixturevalue("_warm")
    before = _threads(), _descriptors()
    yield
    end = time.monotonic() + 5
    while True:
        after = _threads(), _descriptors()
        live = [item.name for item in engine._engines if not item.closed]
        held = [item.name for item in engine._engines if item.keeper.kept]
        records = operation.live()
        counts = after[0] <= before[0] and after[1] <= before[1] and records == 0
        if counts and not live and not held:
            return
        if time.monotonic() > end:
            break
        gc.collect()  # dear, so only where something is left
        time.sleep(0.01)
    pytest.fail(
        f"left behind: {after[0] - before[0]} threads, {after[1] - before[1]} descriptors, "
        f"{records} native records, open engines {live}, engines that hold memory {held}"
    )

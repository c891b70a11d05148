"""What a process pays once: its first connector, first contact, first registration of memory.

As a program, ``python -m harness.once BACKEND ROLE SOCKET``, it is such a process: its lines and
messages go over a socket that it inherits.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.backends.base import Base, touched
from harness.link import Link
from harness.memory import mark, verify
from harness.work import Samples, Side

_LARGE = 256 << 20


class Once:
    """Processes that begin, on both sides.

    Figures: ``open``, the first connector or agent; ``second``, another one; ``contact``, a read of
    8 bytes from a peer that is new, message at hand to bytes at hand; ``next``, another one;
    ``register``, 256 MiB that have their pages; ``again``, the same.
    """

    @staticmethod
    async def passive(side: Side, rounds: int) -> Samples:
        """Offer twice in each round, from a new process."""
        for _ in range(rounds):
            async with _Process(side.backend, "passive") as process:
                for _ in range(2):
                    side.link.send(await process.receive())
                await side.link.receive()
        return {}

    @staticmethod
    async def active(side: Side, rounds: int) -> Samples:
        """Do everything that is measured, in a new process each round."""
        gathered: Samples = {}
        for _ in range(rounds):
            async with _Process(side.backend, "active") as process:
                for _ in range(2):
                    process.send(await side.link.receive())
                for figure, took in json.loads(await process.receive()).items():
                    gathered.setdefault(figure, []).append(took)
            side.link.send(b"done")
        return gathered

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return active


class _Process:
    """A new process of this module, and a link to it."""

    def __init__(self, backend: Base, role: str) -> None:
        module = type(backend).__module__.rpartition(".")[2]
        self._command = [sys.executable, "-m", __name__, module, role]

    async def __aenter__(self) -> Link:
        mine, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, str(number), pass_fds=[number]
            )
        return await Link.over(mine)

    async def __aexit__(self, *exception: object) -> None:
        if exception[0] is not None and self._process.returncode is None:
            self._process.kill()
        code = await self._process.wait()
        if exception[0] is None and code:
            raise RuntimeError(f"a new process ended with {code}")


async def _passive(backend: Base, link: Link) -> None:
    await backend.open(f"once-passive-{os.getpid()}")
    handles = []
    for number in range(2):
        buffer = touched(8)
        mark([buffer], number)
        handle, message = await backend.offer([buffer])
        link.send(message)
        handles.append((handle, buffer))
    for handle, _ in handles:
        await backend.told(handle)
    await backend.close()


async def _active(backend: Base, link: Link) -> None:
    took: dict[str, float] = {}

    @contextmanager
    def taken(figure: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        took[figure] = time.perf_counter() - began

    other = type(backend)()
    with taken("open"):
        await backend.open(f"once-active-{os.getpid()}")
    with taken("second"):
        await other.open(f"once-other-{os.getpid()}")
    memory = touched(_LARGE)
    with taken("register"):
        backend.register(memory)
    with taken("again"):
        backend.register(memory)
    for number, figure in enumerate(("contact", "next")):
        message, buffer = await link.receive(), touched(8)
        with taken(figure):
            await backend.fetch(message, [buffer])
        verify([buffer], number)
    link.send(json.dumps(took).encode())
    await other.close()
    await backend.close()


async def _main(module: str, role: str, number: int) -> None:
    backend = importlib.import_module(f"harness.backends.{module}").Backend()
    assert isinstance(backend, Base)
    link = await Link.over(socket.socket(fileno=number))
    await {"passive": _passive, "active": _active}[role](backend, link)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

"""One process of a pair: runs its side of the workloads that its parent names.

Started as ``python -m harness.side BACKEND ROLE CONTROL LINK...`` where CONTROL and the links are
inherited socket descriptors. Ends when its parent closes CONTROL.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from harness.backends.base import Base
from harness.link import Link
from harness.work import Side
from harness.workloads import WORKLOADS, cpu

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the bytes of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


async def _run(side: Side, role: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do one workload; return its samples, and what it cost the process."""
    gc.collect()
    memory, before = resident(), cpu()
    work = getattr(WORKLOADS[request["workload"]], role)
    samples = await asyncio.wait_for(work(side, **request["arguments"]), request["timeout"])
    after = cpu()
    gc.collect()
    return {
        "samples": samples,
        "user": after[0] - before[0],
        "system": after[1] - before[1],
        "grown": resident() - memory,
    }


async def _main(name: str, role: str, control_fd: int, link_fds: list[int]) -> None:
    control = await Link.over(socket.socket(fileno=control_fd))
    backend: Base | None = None
    try:
        backend = importlib.import_module(f"harness.backends.{name}").Backend()
        assert isinstance(backend, Base)
        await backend.open(f"{name}-{role}-{os.getpid()}")
        links = [await Link.over(socket.socket(fileno=fd)) for fd in link_fds]
        control.send(json.dumps({"version": backend.version}).encode())
        side = Side(backend, links)
        while True:
            try:
                request = json.loads(await control.receive())
            except EOFError:
                return
            control.send(json.dumps(await _run(side, role, request)).encode())
    except BaseException:
        control.send(json.dumps({"error": traceback.format_exc()}).encode())
        raise
    finally:
        if backend is not None:
            await backend.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), list(map(int, sys.argv[4:]))))

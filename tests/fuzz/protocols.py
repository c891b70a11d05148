#!/usr/bin/env python
"""Send nonsense to what listens: the doorbell, the socket of ``top`` and the server of ``perf``.

    tests/fuzz/protocols.py [--seconds 60] [--seed 1] [doorbell] [monitor] [perf]

For so many seconds each, beside good clients, which have to be served, every byte compared. At the
end nothing may have ended that nobody ended, nor grown. Prints what was sent, and the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from doorbells import address
from processes import Peer, open_files

import nixl_connect as nc
from nixl_connect import monitor

DEADLINE = 30.0
# Resident memory that the allocators of Python and C may keep, bytes.
_GROWTH = 32 << 20
# How often a good client comes, in messages; the first of a target warm up.
_GOOD = 50


def resident(pid: int | str = "self") -> int:
    """Return a process's resident memory, bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """That a process neither grows nor keeps files, from when it is made until `check`."""

    def __init__(self, pid: int | str = "self") -> None:
        self._pid = pid
        self._memory, self._files = resident(pid), open_files(pid)

    def check(self) -> dict[str, int]:
        """Compare; return what it grew by."""
        end = time.monotonic() + DEADLINE
        while open_files(self._pid) > self._files and time.monotonic() < end:
            time.sleep(0.05)
        grown = {
            "kilobytes": (resident(self._pid) - self._memory) >> 10,
            "files": open_files(self._pid) - self._files,
        }
        assert grown["files"] <= 0, grown
        assert grown["kilobytes"] << 10 <= _GROWTH, grown
        return grown


def rounds(seconds: float) -> Iterator[int]:
    """Count from 0, for so long."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1


def mutated(dice: random.Random, text: bytes) -> bytes:
    """Return something like a text, and never the same."""
    changed = bytearray(text)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(changed) + 1)
        kind = dice.randrange(4)
        if kind == 0:
            changed[place:place] = dice.randbytes(dice.randint(1, 9))
        elif kind == 1:
            del changed[place : place + dice.randint(1, 9)]
        elif changed:
            changed[min(place, len(changed) - 1)] ^= 1 << dice.randrange(8)
    return bytes(changed) if changed != text else mutated(dice, text)


# --- the doorbell -----------------------------------------------------------------------------


def datagram(dice: random.Random, keys: list[bytes]) -> bytes:
    """Return what might be said at a doorbell: of a known form or none, never with a good key."""
    said = bytes([dice.choice([0, 1, 2, 2, 2, 3, 3, 3, 4, dice.randrange(256)])])
    key = mutated(dice, dice.choice(keys))
    prefix = dice.choice(
        [b"", dice.randbytes(16), dice.randbytes(dice.randrange(40)), b"nixl_connect:moving:",
         b"nixl_connect:cancelled:", b"nixl_connect:broken:", b"nixl_connect:failed:"]
    )  # fmt: skip
    rest = dice.choice([key, prefix + key, prefix, b"", key * dice.randint(1, 200)])
    message = (said + rest)[: dice.choice([1 << 16, 17, 512, 513, 1 << 12])]
    return message if not any(good in message for good in keys) else said


def fuzz_doorbell(dice: random.Random, seconds: float) -> dict[str, Any]:
    """Of this process's connector, with which a peer moves bytes meanwhile."""
    connector = nc.Connector(quarantine=0.0)
    peer = Peer({})
    try:
        peer.do("connect", name=None, options={})
        waiting = [
            connector.create_readable_blocking(nc.Descriptor(bytes(64)), timeout=math.inf)
            for _ in range(20)
        ]
        keys = [each.metadata().notification_key.encode() for each in waiting]
        anybody = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sent = full = good = 0
        watch = None
        for number in rounds(seconds):
            try:
                anybody.sendto(datagram(dice, keys), address(connector))
                sent += 1
            except BlockingIOError:
                full += 1
                time.sleep(0.0005)
            if number % _GOOD == 0:
                source = np.frombuffer(dice.randbytes(64), np.uint8)
                offered = connector.create_writable_blocking(nc.Descriptor(np.zeros(64, np.uint8)))
                told = offered.metadata().model_dump()
                made = peer.do("active", kind="write", metadata=told, sizes=[64], seed=number)
                peer.do("wait", number=made["id"], timeout=DEADLINE)
                offered.wait_for_completion_blocking(DEADLINE)
                read = connector.create_readable_blocking(nc.Descriptor(source))
                told = read.metadata().model_dump()
                made = peer.do("active", kind="read", metadata=told, sizes=[64])
                peer.do("wait", number=made["id"], timeout=DEADLINE)
                read.wait_for_completion_blocking(DEADLINE)
                good += 2
            if number == 10 * _GOOD:
                watch = Watch()
        assert [each.status for each in waiting] == [nc.OperationStatus.INITIALIZED] * len(waiting)
        grown = watch.check() if watch else {}
        anybody.close()
        for each in waiting:
            each.cancel()
    finally:
        peer.end()
        connector.close_blocking()
    return {"datagrams": sent, "full": full, "operations": good, "grown": grown}


# --- the socket of top ------------------------------------------------------------------------


def fuzz_monitor(dice: random.Random, seconds: float) -> dict[str, Any]:
    """Of this process, with a connector that it tells of."""
    with tempfile.TemporaryDirectory() as folder, nc.Connector() as connector:
        connector.create_readable_blocking(nc.Descriptor(bytes(8))).keep(on_end=lambda _: None)
        with monitor.serve(folder) as served:
            sent = good = 0
            watch = None
            for number in rounds(seconds):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                    client.connect(str(served.path))  # and wait, where others queue
                    client.settimeout(DEADLINE)
                    if number % _GOOD:
                        with contextlib.suppress(OSError):  # it hangs up
                            client.sendall(dice.randbytes(dice.choice([0, 1, 100, 1 << 16])))
                            if dice.random() < 0.5:
                                client.shutdown(dice.choice([socket.SHUT_WR, socket.SHUT_RD]))
                            client.recv(dice.choice([1, 1 << 16])) if dice.random() < 0.5 else None
                        sent += 1
                    else:
                        answer = b""
                        while part := client.recv(1 << 16):
                            answer += part
                        assert json.loads(answer)["connectors"], answer
                        good += 1
                if number == 2 * _GOOD:
                    watch = Watch()
            grown = watch.check() if watch else {}
    return {"connections": sent, "snapshots": good, "grown": grown}


# --- the server of perf -----------------------------------------------------------------------

_REQUESTS: list[dict[str, Any]] = [
    {"direction": "read", "bytes": 8},
    {"direction": "write", "bytes": 4096},
    {"direction": "write", "bytes": 4096, "verify": True},
]
_VALUES = [
    None, True, -1, 0, 1, 1 << 20, 1 << 63, 1 << 64, 10**400, 0.5, 1e308, "", "read", "8", "\0",
    "\ud800", [], [8], {}, {"bytes": 8},
]  # fmt: skip


def request(dice: random.Random) -> bytes:
    """Return something that a client might send, a line or more, or less."""
    fields = dict(dice.choice(_REQUESTS))
    kind = dice.randrange(5)
    if kind == 0:
        fields[dice.choice([*fields, "proof", ""])] = dice.choice(_VALUES)
    elif kind == 1:
        del fields[dice.choice(list(fields))]
    line = json.dumps(fields).encode() + b"\n"
    if kind == 2:
        return mutated(dice, line)
    if kind == 3:
        return dice.choice([b"[", b"{", b'{"a":', b"9"]) * dice.choice([10, 10_000]) + b"\n"
    return line * dice.randint(1, 3)


def fuzz_perf(dice: random.Random, seconds: float) -> dict[str, Any]:
    """Of a process of its own."""
    command = [sys.executable, "-m", "nixl_connect", "perf", "server", "--port", "0", "--json"]
    server = subprocess.Popen([*command, "--size", "1MiB"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["listening"]["port"]
        sent = answers = good = 0
        watch = None
        for number in rounds(seconds):
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
                lines = client.makefile("rb")
                if "most" not in json.loads(lines.readline()):
                    time.sleep(0.01)  # those that have hung up are still being let go of
                    continue
                if number % _GOOD:
                    with contextlib.suppress(ConnectionError):
                        for _ in range(dice.randint(1, 5)):
                            text = request(dice)
                            cut = dice.randrange(len(text) + 1)
                            for part in (text[:cut], text[cut:]):
                                client.sendall(part)
                            sent += 1
                        if dice.random() < 0.5:
                            client.shutdown(socket.SHUT_WR)
                            for line in lines:
                                json.loads(line)
                                answers += 1
                else:
                    client.sendall(json.dumps(_REQUESTS[0]).encode() + b"\n")
                    answer = json.loads(lines.readline())
                    # What the others have left behind may be as much as there may be.
                    assert "metadata" in answer or "QuarantineError" in answer["error"], answer
                    good += 1
            if number == 10 * _GOOD:
                watch = Watch(server.pid)
        grown = watch.check() if watch else {}
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0
    finally:
        server.kill()
        server.communicate(timeout=DEADLINE)
    return {"messages": sent, "answers": answers, "good clients": good, "grown": grown}


TARGETS = {"doorbell": fuzz_doorbell, "monitor": fuzz_monitor, "perf": fuzz_perf}


def main() -> None:
    """Fuzz what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all, if none is named")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    for name in arguments.targets or TARGETS:
        found = TARGETS[name](random.Random(f"{seed} {name}"), arguments.seconds)
        print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

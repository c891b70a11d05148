"""Say what of the process changes when connectors open, work and close. Run by test_process.py.

    python unchanged.py handler|default|ignored [set-later]

Prints, as JSON on standard error: what was different after each step, and which of the threads that
were started take signals. With "set-later" the program ignores SIGHUP once all is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import locale
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import nixl_connect as nc
from nixl_connect.peers import lanes

LIBC = ctypes.CDLL(None)
RESTORER = 0x04000000  # a flag that glibc sets for itself
STANDARD = {0, 1, 2}
# Signals of what a thread itself does wrong, and those that nobody can keep from it.
FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS"}
FAULTS |= {"SIGKILL", "SIGSTOP"}


class Action(ctypes.Structure):
    """C's struct sigaction on Linux."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class Stack(ctypes.Structure):
    """C's stack_t."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def actions() -> dict[str, Any]:
    """Return what happens at each signal."""
    found = {}
    for number in signal.valid_signals():
        action = Action()
        assert LIBC.sigaction(int(number), None, ctypes.byref(action)) == 0
        mask = action.mask[0] if action.handler not in (None, 1) else 0
        found[f"signal {int(number)}"] = action.handler, mask, action.flags & ~RESTORER
    return found


def environment() -> list[str]:
    """Return the environment as C sees it."""
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(LIBC, "environ")
    found = []
    while (item := environ[len(found)]) is not None:
        found.append(item.decode("latin-1"))
    return found


def stream(number: int) -> Any:
    """Return what a standard stream refers to, and how."""
    try:
        told = os.fstat(number)
    except OSError:
        return None
    return told.st_dev, told.st_ino, os.get_blocking(number), os.get_inheritable(number)


def arithmetic() -> Any:
    """Return how this thread calculates: rounding, and whether the smallest numbers count."""
    smallest = np.finfo(np.float64).smallest_subnormal
    return ctypes.CDLL("libm.so.6").fegetround(), bool(smallest * np.float64(1.0) > 0)


def state() -> dict[str, Any]:
    """Return what a library should leave alone."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    stack = Stack()
    LIBC.sigaltstack(None, ctypes.byref(stack))
    return {
        **actions(),
        **{f"stream {number}": stream(number) for number in STANDARD},
        **{f"limit {number}": resource.getrlimit(number) for number in range(16)},
        "environment": environment(),
        "arithmetic": arithmetic(),
        "umask": status["Umask"],
        "blocked": status["SigBlk"],
        "locale": locale.setlocale(locale.LC_ALL),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "scheduler": (os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))),
        "timers": [signal.getitimer(which) for which in range(3)],
        "wakeup": wakeup(),
        "stack": (stack.pointer, stack.flags, stack.size),
        "folder": str(Path.cwd()),
        "name": Path("/proc/self/comm").read_text(),
    }


def wakeup() -> int:
    """Return the descriptor that wakes the interpreter for a signal."""
    found = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(found)
    return found


def takers(known: set[str]) -> list[str]:
    """Return the threads that have been started and take a signal of the program's."""
    found = []
    wanted = [number for number in signal.Signals if number.name not in FAULTS]
    for task in Path("/proc/self/task").iterdir():
        if task.name in known:
            continue
        with contextlib.suppress(FileNotFoundError):
            told = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            blocked = int(told["SigBlk"], 16)
            if any(not blocked >> number - 1 & 1 for number in wanted):
                found.append(told["Name"].strip())
    return found


def move(source: nc.Connector, target: nc.Connector, size: int) -> None:
    """Move some bytes, and compare."""
    data, into = np.random.default_rng(1).bytes(size), bytearray(size)
    offered = source.create_readable_blocking(nc.Descriptor(data))
    read = target.begin_read_blocking(offered.metadata(), nc.Descriptor(into))
    read.wait_for_completion_blocking(20)
    offered.wait_for_completion_blocking(20)
    assert into == data


async def open_on_a_loop() -> nc.Connector:
    """Open a connector from an event loop."""
    connector = nc.Connector()
    await connector._create_connection()
    return connector


def main() -> None:
    """Open, move, lose a peer, close; look after each."""
    lanes.COUNT = 2
    dispositions: dict[str, Any] = {
        "handler": lambda *_: None,
        "default": signal.SIG_DFL,
        "ignored": signal.SIG_IGN,
    }
    signal.signal(signal.SIGHUP, dispositions[sys.argv[1]])
    known = {task.name for task in Path("/proc/self/task").iterdir()}
    before = state()
    steps = {}

    def look(step: str) -> None:
        now = state()
        steps[step] = {key: (before[key], now[key]) for key in before if before[key] != now[key]}

    one, other, lost = nc.Connector(), nc.Connector(), nc.Connector()
    one._open()
    look("open")
    other._open()
    look("open another")
    third = asyncio.run(open_on_a_loop())
    look("open on a loop")
    move(one, other, 100)
    move(one, other, 9 << 20)
    assert len(other._open()._engine.lanes) == 2
    look("move")
    told = lost.create_readable_blocking(nc.Descriptor(b"12345678")).metadata()
    lost.close_blocking()
    for _ in range(2):  # the second time a scout goes first
        with contextlib.suppress(nc.NixlConnectError):
            other.begin_read_blocking(told, nc.Descriptor(bytearray(8)))
    look("lose")
    taking = takers(known)
    if "set-later" in sys.argv:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        before["signal 1"] = actions()["signal 1"]
    one.close_blocking()
    look("close")
    for connector in (other, third):
        connector.close_blocking()
    look("close all")
    sys.stderr.write("\n" + json.dumps({"steps": steps, "takers": taking}) + "\n")


if __name__ == "__main__":
    main()

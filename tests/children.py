"""Runs programs that fork."""

import textwrap

import pytest
from processes import run_python

PRELUDE = """
    import asyncio, contextlib, ctypes, gc, json, os, signal, socket, subprocess, sys, threading
    import time
    import numpy as np
    import nixl_connect as nc
    from nixl_connect._native import file_descriptors

    def files():
        found = {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        # The segments that UCX has mapped are in a child's memory anyway.
        apart = ("/proc/", "/dev/shm/")
        return {fd: path for fd, path in found.items() if not path.startswith(apart)}

    def steady():
        # UCX connects and closes by itself, some time after what it was asked for.
        end = time.monotonic() + 20
        seen, since = files(), time.monotonic()
        while time.monotonic() < since + 0.3:
            assert time.monotonic() < end
            time.sleep(0.01)
            if files() != seen:
                seen, since = files(), time.monotonic()

    def in_child(check):
        # Runs a check in a forked child; whatever it raises fails it.
        child = os.fork()
        if child == 0:
            status = 1
            try:
                check()
                status = 0
            finally:
                if status:
                    import traceback
                    traceback.print_exc()
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def move(source, target):
        offered = source.create_readable_blocking(nc.Descriptor(np.ones(100, np.uint8)))
        into = np.zeros(100, np.uint8)
        reading = target.begin_read_blocking(offered.metadata(), nc.Descriptor(into))
        reading.wait_for_completion_blocking(20)
        offered.wait_for_completion_blocking(20)
        assert into.all()
"""


def run(code, **environment):
    """Run code in a process of its own, which fails if any of it does."""
    prelude, code = textwrap.dedent(PRELUDE), textwrap.dedent(code)
    return run_python("-W", "ignore::DeprecationWarning", "-c", prelude + code, **environment)


TRANSPORTS = pytest.mark.parametrize("tls", ["all", "tcp"])

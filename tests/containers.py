"""Containers of tests: processes with namespaces, filters and users of their own, as prefixes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

NOBODY = 65534
# Runs a command that may not copy from process to process, as container engines have forbidden it:
# a filter of system calls, for x86-64 (310 and 311) and arm64 (270 and 271).
_FILTERED = """
import ctypes, errno, os, platform, struct, sys
first = {"x86_64": 310, "aarch64": 270}[platform.machine()]
rows = [(0x20, 0, 0, 0), (0x15, 1, 0, first), (0x15, 0, 1, first + 1),
        (0x06, 0, 0, 0x50000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rows", ctypes.c_void_p)]
program = Program(len(rows), ctypes.cast(code, ctypes.c_void_p))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
"""
FILTERED = [sys.executable, "-c", _FILTERED]
"""As Docker's profile for kernels before 4.8 does."""


FEWER_RIGHTS = [
    "setpriv", "--inh-caps", "-all", "--bounding-set", "-net_admin,-sys_ptrace"
]  # fmt: skip
"""Not all the capabilities of the others, and not the one to look into them."""


def require_root() -> None:
    """Skip the test where this process may not make containers."""
    made = subprocess.run(
        ["unshare", "--mount", "--pid", "--ipc", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"],
        check=False,
        capture_output=True,
        timeout=20,
    )
    if made.returncode:
        pytest.skip(f"needs the right to make namespaces: {made.stderr.decode().strip()}")


def after(program: str, *command: str) -> list[str]:
    """Return a command that runs a program of the shell, and in its place the one that follows."""
    return [*command, "sh", "-c", f'{program} && exec "$@"', "sh"]


def with_shared_memory(size: str) -> list[str]:
    """Return a prefix with a /dev/shm of its own."""
    return after(f"mount -t tmpfs -o size={size} none /dev/shm", "unshare", "--mount")


def as_user(number: int = NOBODY) -> list[str]:
    """Return a prefix for a user without rights and without HOME.

    The interpreter is within that user's reach, wherever it is.
    """
    become = f"exec setpriv --reuid {number} --regid {number} --clear-groups env -u HOME"
    return ["unshare", "--mount", "sh", "-c", f'{opened_up()} && {become} "$@"', "sh"]


def opened_up() -> str:
    """Return what opens the folders of the interpreter to all, in a mount namespace of its own."""
    hidden = next(
        (
            path
            for path in reversed(Path(sys.executable).resolve().parents)
            if not path.stat().st_mode & 1
        ),
        None,
    )
    if hidden is None:
        return "true"
    return f"""
        mount -t tmpfs none /mnt && mkdir /mnt/kept && mount --rbind {hidden} /mnt/kept &&
        mount -t tmpfs -o mode=755 none {hidden} &&
        for kept in /mnt/kept/*/ /mnt/kept/.[!.]*/; do
            test -d "$kept" || continue
            name={hidden}/$(basename "$kept")
            mkdir "$name" && mount --rbind "$kept" "$name" || exit 99
        done"""


class Shared:
    """Namespaces that several containers share: those of a pod.

    Parameters
    ----------
    *flags : str
        Which, as for unshare(1).
    """

    def __init__(self, *flags: str) -> None:
        command = ["unshare", *flags, "--fork", "--kill-child", "sleep", "infinity"]
        self._holder = subprocess.Popen(command)
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        end = time.monotonic() + 20
        while not (found := children.read_text().split()):
            assert time.monotonic() < end
            time.sleep(0.01)
        self.prefix = ["nsenter", "--target", found[0], *flags]
        if "--pid" in flags:
            # What /proc shows has to be these processes.
            self.prefix += after("mount -t proc proc /proc", "unshare", "--mount")

    def end(self) -> None:
        """End them."""
        self._holder.kill()
        self._holder.wait(20)

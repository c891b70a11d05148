"""A peer, as peer.py, that forks, starts other programs, and becomes another one."""

import ctypes
import json
import mmap
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import peer

from nixl_connect._native import file_descriptors


def doorbells() -> set[int]:
    """Return the descriptors of doorbells among those of this process."""
    found = set()
    for fd in file_descriptors.noted():
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            with socket.socket(fileno=os.dup(fd)) as copy:
                if str(copy.getsockname()).startswith("b'\\x00nixl_connect/"):
                    found.add(fd)
    return found


def wait_for_ever() -> None:
    """Live until killed, or until the tests end."""
    threading.Event().wait(120)
    os._exit(0)


class Peer(peer.Peer):
    """Carries out commands; each public method is one."""

    def _buffer(self, size: int, seed: int | None) -> np.ndarray:
        # At an address of its own: the next program can have it, too.
        buffer = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        if seed is not None:
            buffer[:] = peer.content(seed, size)
        return buffer

    def address(self, number: int) -> dict:
        """Tell where an operation's buffer is."""
        return {"address": self.arrays[number][0].ctypes.data}

    def fork(self, how: str) -> dict:
        """Have a child, which lives on: a fork, Python's or the C library's, or another program."""
        if how == "program":
            # With all that is handed down, as os.system does.
            child = subprocess.Popen(["sleep", "120"], close_fds=False, stdout=subprocess.DEVNULL)
            return {"pid": child.pid}
        pid = os.fork() if how == "python" else ctypes.PyDLL(None).fork()
        if pid == 0:
            wait_for_ever()
        return {"pid": pid}

    def become(self, address: int, size: int, byte: int, hand_down: bool) -> dict:
        """Become another program, which has memory of its own at an address.

        With `hand_down` it keeps what UCX has opened, so that peers' UCX sees nothing.
        """
        if hand_down:
            for fd in set(file_descriptors.noted()) - doorbells():
                os.set_inheritable(fd, True)
        arguments = json.dumps([address, size, byte])
        os.execv(sys.executable, [sys.executable, __file__, arguments])

    def start_over(self, name: str) -> dict:
        """Become the same program again, with a connector of that name."""
        os.execv(sys.executable, [sys.executable, __file__, json.dumps(name)])


class Successor:
    """What a peer became: a program that has never heard of NIXL."""

    def __init__(self, address: int, size: int, byte: int) -> None:
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10
        assert libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, fixed, -1, 0) == address
        ctypes.memset(address, byte, size)
        self._where = address, size

    def memory(self) -> dict:
        """Tell which bytes there are."""
        return {"bytes": sorted(set(ctypes.string_at(*self._where)))}


if __name__ == "__main__":
    became = json.loads(sys.argv[1]) if len(sys.argv) > 1 else None
    program = Successor(*became) if isinstance(became, list) else Peer()
    if isinstance(became, str):
        program.connect(became)
    if became is not None:
        print(json.dumps({"pid": os.getpid()}), flush=True)
    peer.main(program)

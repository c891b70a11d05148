"""What runs on a double of CUDA's driver (cuda.c), in a process of its own: see test_cuda.py."""

import ctypes
import os

import pytest

DOUBLE = os.environ.get("CUDA_DOUBLE")
collect_ignore_glob = [] if DOUBLE else ["*"]

DEVICE, HOST = 2, 1


class Driver:
    """The double's own functions."""

    def __init__(self, path):
        # cuda-python finds the library by its name among those that are loaded.
        self.library = ctypes.CDLL(path)
        self.library.double_stream.restype = ctypes.c_void_p
        self.library.double_default_stream.restype = ctypes.c_void_p
        self.next = 0x10_0000_0000

    def allocate(self, size, *, device=0, kind=DEVICE, managed=False, gap=4096):
        """Return the address of memory that the driver knows, and that is not there."""
        start = self.next
        self.map(start, size, device=device, kind=kind, managed=managed)
        self.next += size + gap
        return start

    def map(self, start, size, *, device=0, kind=DEVICE, managed=False):
        self.library.double_map(
            ctypes.c_uint64(start), ctypes.c_uint64(size), kind, device, int(managed)
        )

    def unmap(self, start):
        """Have it forget memory."""
        self.library.double_unmap(ctypes.c_uint64(start))

    def stream(self, device=0):
        return self.library.double_stream(device)

    def default_stream(self, device=0):
        return self.library.double_default_stream(device)

    def give(self, stream, target=None, source=None):
        """Give a stream something to do: to copy one array to another, or just to be busy."""
        self.library.double_give(
            ctypes.c_void_p(stream),
            ctypes.c_void_p(None if target is None else target.ctypes.data),
            ctypes.c_void_p(None if source is None else source.ctypes.data),
            ctypes.c_size_t(0 if source is None else source.nbytes),
        )

    def capture(self, stream, capturing):
        """Have a stream be captured in a graph, or no more."""
        self.library.double_capture(ctypes.c_void_p(stream), ctypes.c_bool(capturing))

    def finish(self, stream):
        self.library.double_finish(ctypes.c_void_p(stream))

    def fail(self, result):
        self.library.double_fail(result)

    @property
    def events(self):
        """How many there are."""
        return self.library.double_events()

    @property
    def depth(self):
        """How many contexts this thread has on its stack."""
        return self.library.double_depth()


_driver = Driver(DOUBLE) if DOUBLE else None


@pytest.fixture
def driver():
    yield _driver
    assert _driver.events == 0, "events are left"
    assert _driver.depth == 0, "a context stayed the current one"

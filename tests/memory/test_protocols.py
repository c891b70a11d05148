"""Every protocol moves bytes of the host: each row of the documentation's table is a test.

The marker names the row; tools/protocols.py makes the table of those that pass.
"""

import array
import ctypes
import mmap

import numpy as np
import pytest
from arrays.moving import moved
from capsules import Exporter

DATA = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)
BUFFER, INTERFACE, DLPACK = "buffer protocol", "`__array_interface__`", "`__dlpack__`"


class Interface:
    def __init__(self, data):
        self.data = data
        self.__array_interface__ = data.__array_interface__


def mapped(data):
    memory = mmap.mmap(-1, data.nbytes)
    memory[:] = data.tobytes()
    return memory


def row(what, how, make):
    return pytest.param(make, marks=pytest.mark.protocol(what, how, "host", "sent, received"))


@pytest.mark.parametrize(
    "make",
    [
        row("`bytearray`", BUFFER, bytearray),
        row("`memoryview`", BUFFER, lambda data: memoryview(bytearray(data))),
        row("`array`", BUFFER, lambda data: array.array("B", data.tobytes())),
        row("`mmap`", BUFFER, mapped),
        row("ctypes", BUFFER, lambda data: (ctypes.c_ubyte * data.size)(*data)),
        row("NumPy", BUFFER, np.copy),
        row("NumPy's dates", INTERFACE, lambda data: data.copy().view("M8[s]")),
        row("any object", INTERFACE, lambda data: Interface(data.copy())),
    ],
)
def test_sent_and_received(make):
    source, target = make(DATA), make(np.zeros_like(DATA))
    moved(source, target)
    kept = target.data if isinstance(target, Interface) else target
    assert np.asarray(kept).tobytes() == DATA.tobytes()


@pytest.mark.protocol("`bytes`", BUFFER, "host", "sent; read-only")
def test_sent():
    target = bytearray(DATA.size)
    moved(DATA.tobytes(), target)
    assert target == DATA.tobytes()


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(None, marks=pytest.mark.protocol(
            "any object", DLPACK + ", before 1.0", "host", "sent, received")),
        pytest.param((1, 1), marks=pytest.mark.protocol(
            "any object", DLPACK + ", versioned", "host", "sent, received")),
    ],
)  # fmt: skip
def test_dlpack(version):
    source, target = DATA.copy(), np.zeros_like(DATA)
    moved(
        Exporter(source.ctypes.data, source.shape, version=version),
        Exporter(target.ctypes.data, target.shape, version=version),
    )
    assert (target == source).all()


@pytest.mark.protocol("`(pointer, size)`, with a device and an owner", "", "host", "sent, received")
def test_pointers():
    source, target = DATA.copy(), np.zeros_like(DATA)
    moved(
        (source.ctypes.data, source.nbytes),
        (target.ctypes.data, target.nbytes, "cpu", target),
    )
    assert (target == source).all()


@pytest.mark.protocol("`(array, device)`", "that of the array", "host", "sent, received")
def test_arrays_with_their_device():
    target = np.zeros_like(DATA)
    moved((DATA, "cpu"), (target, "cpu"))
    assert (target == DATA).all()

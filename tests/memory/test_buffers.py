"""What a descriptor takes: every form of memory, and a clear error for all that is not memory."""

import array
import ctypes
import gc
import mmap
import weakref

import numpy as np
import pytest
from accepting import CPU, address, refused

import nixl_connect as nc
from nixl_connect import Descriptor
from nixl_connect._native import buffer

# --- buffers --------------------------------------------------------------------------------------


def from_bytearray():
    data = bytearray(b"abcdef")
    return data, ctypes.addressof(ctypes.c_char.from_buffer(data)), 6, False


def from_array():
    data = array.array("d", [1, 2, 3])
    return data, data.buffer_info()[0], 24, False


def from_mmap():
    data = mmap.mmap(-1, 8192)
    return data, ctypes.addressof(ctypes.c_char.from_buffer(data)), 8192, False


def from_ctypes():
    data = (ctypes.c_uint16 * 5)()
    return data, ctypes.addressof(data), 10, False


def from_memoryview():
    owner = bytearray(100)
    start = ctypes.addressof(ctypes.c_char.from_buffer(owner))
    return memoryview(owner)[10:30], start + 10, 20, False


def from_readonly_memoryview():
    data, start, size, _ = from_bytearray()
    return memoryview(data).toreadonly(), start, size, True


def from_bytes():
    data = b"abcdef"
    return data, np.frombuffer(data, np.uint8).ctypes.data, 6, True


@pytest.mark.parametrize(
    "make",
    [
        from_bytearray,
        from_array,
        from_mmap,
        from_ctypes,
        from_memoryview,
        from_readonly_memoryview,
        from_bytes,
    ],
)
def test_bytes_like(make):
    data, start, size, readonly = make()
    descriptor = Descriptor(data)
    assert (descriptor.ptr, descriptor.size, descriptor.device) == (start, size, CPU)
    assert descriptor.is_readonly is readonly
    assert descriptor._data_ref is data
    assert not descriptor.is_registered
    assert ctypes.string_at(descriptor.ptr, size) == memoryview(data).tobytes()


OFFSET = np.dtype([("Offset", "<u4"), ("O", "<f8")])

ARRAYS = {
    "vector": np.arange(10, dtype=np.int64),
    "0-dimensional": np.array(5.0),
    "C order": np.zeros((3, 4, 5), np.float32),
    "Fortran order": np.zeros((3, 4, 5), np.float32, order="F"),
    "contiguous slice": np.zeros((10, 8))[2:5],
    "Fortran slice": np.zeros((10, 8), order="F")[:, 2:5],
    "one item": np.zeros(10)[3:4],
    "one item, backwards": np.zeros(10)[3:4][::-1],
    "extents of 1": np.zeros((5, 5))[1:2, :].reshape(1, 1, 5),
    "bool": np.zeros(3, bool),
    "float16": np.zeros(3, np.float16),
    "longdouble": np.zeros(3, np.longdouble),
    "complex": np.zeros(3, np.complex128),
    "big-endian": np.zeros(3, ">i4"),
    "bytes": np.zeros(3, "S5"),
    "text": np.zeros(3, "U5"),
    "void": np.zeros(3, "V7"),
    "structured": np.zeros(3, [("a", "i1"), ("b", "<f8")]),
    "structured, aligned": np.zeros(3, np.dtype([("a", "i1"), ("b", "<f8")], align=True)),
    "structured, names with an O": np.zeros(3, OFFSET),
    "structured, nested": np.zeros(3, [("a", OFFSET, (2,))]),
    "record": np.zeros(3, OFFSET).view(np.recarray),
    "memmap-like view": np.frombuffer(bytearray(64), np.uint16, 8, 16),
    # NumPy exports these over its array interface alone.
    "datetime64": np.zeros(3, "M8[ns]"),
    "datetime64 with a step": np.zeros(3, "M8[25us]"),
    "timedelta64": np.zeros((2, 3), "m8[s]"),
    "datetime64, 0-dimensional": np.array("2020-01-01", "M8[D]"),
    "datetime64, Fortran order": np.zeros((3, 4), "M8[s]", order="F"),
    "datetime64, Fortran slice": np.zeros((3, 8), "M8[s]", order="F")[:, 2:5],
    "datetime64, one item": np.zeros(10, "M8[s]")[3:4][::-1],
    "structured with datetime64": np.zeros(3, [("when", "M8[s]"), ("Offset", "<i4")]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy(name):
    data = ARRAYS[name]
    descriptor = Descriptor(data)
    assert (descriptor.ptr, descriptor.size) == (address(data), data.nbytes)
    assert descriptor.device == CPU
    assert descriptor.is_readonly is False
    assert descriptor._data_ref is data


@pytest.mark.parametrize("dtype", ["f8", "M8[s]"])
def test_numpy_readonly(dtype):
    data = np.zeros(4, dtype)
    data.flags.writeable = False
    assert Descriptor(data).is_readonly is True


@pytest.mark.parametrize("dtype", ["f8", "M8[s]"])
@pytest.mark.parametrize(
    "cut",
    [
        lambda a: a[::2],
        lambda a: a[::-1],
        lambda a: a[:, :4],
        lambda a: a[:, ::-1],
        lambda a: a[:, 0],
        lambda a: np.asfortranarray(a)[:4],
        lambda a: a.reshape(4, 2, 8).swapaxes(0, 1),
        lambda a: np.broadcast_to(a[0], (8, 8)),
        lambda a: np.lib.stride_tricks.sliding_window_view(a[0], 3),
    ],
    ids=[
        "step",
        "backwards",
        "columns",
        "row backwards",
        "column",
        "rows of Fortran order",
        "axes swapped",
        "broadcast",
        "windows",
    ],
)
def test_numpy_not_contiguous(dtype, cut):
    refused(cut(np.zeros((8, 8), dtype)), ValueError, "contiguous")


@pytest.mark.parametrize(
    "data",
    [
        np.zeros(3, object),
        np.zeros(3, [("a", "i4"), ("b", "O")]),
        np.zeros(3, [("a", [("b", "O", (2,))])]),
        np.zeros(3, [("when", "M8[s]"), ("b", "O")]),
        np.zeros(3, [("when", "M8[s]"), ("a", [("b", "O", (2,))])]),
        np.array(["a"], getattr(getattr(np, "dtypes", None), "StringDType", lambda: "O")()),
    ],
    ids=lambda item: str(item.dtype),
)
def test_python_objects(data):
    """Pointers of this process, to a peer."""
    refused(data, ValueError, "data")


@pytest.mark.parametrize(
    "data",
    [
        np.ma.zeros(3),
        np.ma.masked_array([1, 2], [True, False]),
        np.ma.masked_array([1, 2], [True, False])[1:],
        np.ma.zeros(3, "M8[s]"),
        (np.ma.zeros(3), "cpu"),
    ],
    ids=["none masked", "one masked", "a view", "dates", "with a device"],
)
def test_masked(data):
    """What arrived would not say which items count."""
    refused(data, ValueError, "masked")


def test_an_exporter_with_another_mask():
    class Sprite(np.ndarray):
        mask = "what covers it"

    sprite = np.zeros(3, np.uint8).view(Sprite)
    assert Descriptor(sprite).size == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytearray(),
        memoryview(b""),
        array.array("i"),
        np.empty(0),
        np.empty((3, 0, 2)),
        np.zeros(5)[5:],
        np.empty(3, "V0"),
        np.empty(0, "M8[s]"),
    ],
    ids=lambda item: type(item).__name__,
)
def test_no_bytes(data):
    refused(data, ValueError, "size")


def test_memoryview_not_contiguous():
    refused(memoryview(bytearray(10))[::2], ValueError, "contiguous")
    refused(memoryview(bytearray(10))[::-1], ValueError, "contiguous")


def test_released_memoryview():
    view = memoryview(bytearray(10))
    view.release()
    refused(view, ValueError, "released")


def test_closed_mmap():
    data = mmap.mmap(-1, 4096)
    data.close()
    refused(data, ValueError, "closed")


@pytest.mark.parametrize(
    "data", ["text", 5, 5.0, True, [1, 2], {1: 2}, {1}, range(5), bytes, len], ids=repr
)
def test_no_memory(data):
    refused(data, TypeError, "data must be")


@pytest.mark.parametrize(
    "error", [TypeError, ValueError, nc.ArgumentTypeError, nc.ArgumentError, nc.NixlConnectError]
)
def test_none(error):
    """A wrong type, as any other; and what the reference raises."""
    with pytest.raises(error, match="None"):
        Descriptor(None)


# --- how long -------------------------------------------------------------------------------------


def test_bytearray_keeps_its_size_while_a_descriptor_lives():
    data = bytearray(8)
    descriptor = Descriptor(data)
    for change in (data.clear, data.pop, lambda: data.append(0), lambda: data.extend(bytes(1000))):
        with pytest.raises(BufferError):
            change()
    data[0] = 1  # its content may change
    other = Descriptor(memoryview(data))
    del descriptor
    with pytest.raises(BufferError):
        data.append(0)
    del other
    data.append(0)
    assert len(data) == 9


def test_array_lives_as_long_as_its_descriptor():
    data = np.zeros(8)
    alive = weakref.ref(data)
    descriptor = Descriptor(data)
    del data
    gc.collect()
    assert alive() is descriptor._data_ref
    del descriptor
    gc.collect()
    assert alive() is None


def test_memory_is_not_copied():
    data = np.zeros(16, np.uint8)
    descriptor = Descriptor(data)
    data[3] = 7
    assert ctypes.string_at(descriptor.ptr, 4) == b"\0\0\0\7"


def test_inspect():
    assert buffer.inspect(memoryview(np.zeros((2, 3), order="F")))[1:] == (48, False, True)
    released = memoryview(bytearray(8))
    released.release()
    with pytest.raises(ValueError, match="released"):
        buffer.inspect(released)
    for no_view in (None, b"bytes", bytearray(8)):
        with pytest.raises(TypeError):
            buffer.inspect(no_view)

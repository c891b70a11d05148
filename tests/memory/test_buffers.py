"""What a descriptor takes: every form of memory, and a clear error for all that is not memory."""

import array
import ctypes
import gc
import mmap
import weakref

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect import Descriptor, Device, DeviceKind
from nixl_connect._native import buffer

CPU = Device("cpu")


def address(array):
    return array.ctypes.data


def refused(data, kind, words):
    """Assert that `data` is refused with an error of the tree, and the built-in `kind`."""
    with pytest.raises(kind, match=words) as caught:
        Descriptor(data)
    assert isinstance(caught.value, nc.NixlConnectError), type(caught.value)


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
    "masked": np.ma.zeros(3),
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


def test_none():
    with pytest.raises((TypeError, ValueError), match="None") as caught:
        Descriptor(None)
    assert isinstance(caught.value, nc.NixlConnectError)


# --- __array_interface__ --------------------------------------------------------------------------

MEMORY = np.arange(64, dtype=np.uint8)


class Interface:
    """An object with an array interface of 2 x 3 four-byte items, changed by the arguments."""

    def __init__(self, without=(), **fields):
        whole = {"version": 3, "typestr": "<f4", "shape": (2, 3), "data": (address(MEMORY), False)}
        self.__array_interface__ = {
            name: value for name, value in (whole | fields).items() if name not in without
        }


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, 24),
        ({"strides": None}, 24),
        ({"strides": (12, 4)}, 24),
        ({"strides": (4, 8)}, 24),
        ({"shape": (1, 3), "strides": (999, 4)}, 12),
        ({"shape": ()}, 4),
        ({"shape": (7,), "typestr": "|u1"}, 7),
        ({"typestr": "|V2"}, 12),
        ({"typestr": "|S2"}, 12),
        ({"typestr": "<U2"}, 48),
        ({"typestr": "|b1"}, 6),
        ({"typestr": "<M8[ns]", "shape": (2,)}, 16),
        ({"data": (np.uint64(address(MEMORY)), False)}, 24),
        ({"descr": [("Offset", "<f4")]}, 24),
    ],
    ids=str,
)
def test_interface(fields, size):
    data = Interface(**fields)
    descriptor = Descriptor(data)
    assert (descriptor.ptr, descriptor.size, descriptor.device) == (address(MEMORY), size, CPU)
    assert type(descriptor.ptr) is type(descriptor.size) is int
    assert descriptor.is_readonly is False
    assert descriptor._data_ref is data


def test_interface_readonly():
    assert Descriptor(Interface(data=(address(MEMORY), True))).is_readonly is True


def test_interface_keeps_its_object():
    """The object owns the memory, and may have made it for this one interface."""
    data = Interface()
    alive = weakref.ref(data)
    descriptor = Descriptor(data)
    del data
    gc.collect()
    assert alive() is not None
    del descriptor
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    "fields",
    [
        {"without": ["typestr"]},
        {"without": ["shape"]},
        {"without": ["data"]},
        {"typestr": None},
        {"typestr": ""},
        {"typestr": "<"},
        {"typestr": "<f"},
        {"typestr": "<fx"},
        {"typestr": "<f-4"},
        {"typestr": "<f0"},
        {"typestr": 5},
        {"typestr": "|O8"},
        {"typestr": "|V16", "descr": [("a", "<M8[s]"), ("b", "|O")]},
        {"typestr": "|V16", "descr": [("a", "<M8[s]"), ("b", "|O8")]},
        {"typestr": "|V16", "descr": [("a", [("b", "|O8", (2,))])]},
        {"shape": None},
        {"shape": 6},
        {"shape": "23"},
        {"shape": (2.0, 3)},
        {"shape": (2, None)},
        {"shape": (-2, 3)},
        {"shape": (-2, -3)},
        {"shape": (2, 0)},
        {"shape": (2**62, 2)},
        {"shape": (2**40, 2**40)},
        {"data": None},
        {"data": 5},
        {"data": ()},
        {"data": (4096,)},
        {"data": (4096, False, 1)},
        {"data": (0, False)},
        {"data": (-4096, False)},
        {"data": (2**64 - 1, False)},
        {"data": (2**70, False)},
        {"data": (None, False)},
        {"data": ("4096", False)},
        {"data": ("text", False)},
        {"data": (4096.0, False)},
        {"data": (True, False)},
        {"data": bytes(24)},
        {"strides": 4},
        {"strides": (4,)},
        {"strides": (24, 12, 4)},
        {"strides": ()},
        {"strides": "44"},
        {"strides": (None, 4)},
        {"strides": (24, 4)},
        {"strides": (12, 8)},
        {"strides": (-12, 4)},
        {"strides": (0, 4)},
    ],
    ids=str,
)
def test_malformed_interface(fields):
    refused(Interface(**fields), (TypeError, ValueError), "data")


@pytest.mark.parametrize("interface", [None, 5, "text", (), []], ids=repr)
def test_interface_that_is_none(interface):
    data = Interface()
    data.__array_interface__ = interface
    refused(data, TypeError, "data must be")


def test_buffer_goes_before_the_interface():
    """A buffer is an export that holds the memory in place; an interface is only a claim."""

    class Both(bytearray):
        @property
        def __array_interface__(self):
            return {"version": 3, "typestr": "|u1", "shape": (5,), "data": (4096, False)}

    assert Descriptor(Both(b"abc")).size == 3


# --- tuples ---------------------------------------------------------------------------------------


class DevicePointer:
    """As cuda-python's CUdeviceptr: convertible to int, and nothing else."""

    def __init__(self, value):
        self.value = value

    def __int__(self):
        return self.value


class Index:
    """As an integer of some array library."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@pytest.mark.parametrize(
    "pointer",
    [4096, np.uint64(4096), np.int32(4096), np.array(4096), DevicePointer(4096), Index(4096)],
    ids=lambda item: type(item).__name__,
)
@pytest.mark.parametrize(
    "size", [16, np.int64(16), Index(16)], ids=lambda item: type(item).__name__
)
def test_pointers(pointer, size):
    descriptor = Descriptor((pointer, size))
    assert (descriptor.ptr, descriptor.size, descriptor.device) == (4096, 16, CPU)
    assert type(descriptor.ptr) is type(descriptor.size) is int
    assert descriptor.is_readonly is False
    assert descriptor._data_ref is None


@pytest.mark.parametrize(
    "device", ["cuda:1", Device("cuda:1"), Device((DeviceKind.CUDA, 1))], ids=repr
)
def test_pointer_on_a_device(device):
    owner = Index(0)
    for data in ((4096, 16, device), (4096, 16, device, owner)):
        descriptor = Descriptor(data)
        assert (descriptor.ptr, descriptor.size) == (4096, 16)
        assert descriptor.device == Device("cuda:1")
        assert str(descriptor.metadata.device) == "cuda:1"
        assert descriptor._data_ref is (owner if len(data) == 4 else None)


def test_owner_lives_as_long_as_the_descriptor():
    owner = Index(0)
    alive = weakref.ref(owner)
    descriptor = Descriptor((4096, 16, "cpu", owner))
    del owner
    gc.collect()
    assert descriptor._data_ref is alive()
    assert alive() is not None
    del descriptor
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("device", ["cpu", "host", Device("cpu")], ids=repr)
@pytest.mark.parametrize("make", [lambda: np.zeros(4), lambda: bytearray(32), Interface])
def test_array_on_a_device(make, device):
    data = make()
    descriptor = Descriptor((data, device))
    plain = Descriptor(data)
    assert (descriptor.ptr, descriptor.size) == (plain.ptr, plain.size)
    assert descriptor.device == CPU
    assert descriptor._data_ref is data


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "xpu:0", Device("cuda:0")], ids=repr)
def test_device_that_contradicts_the_data(device):
    refused((np.zeros(4), device), ValueError, "device")
    refused((bytearray(4), device), ValueError, "device")


@pytest.mark.parametrize(
    "data",
    [(), (4096,), (4096, 16, "cpu", None, None), (4096, 16, "cpu", None, None, None)],
    ids=lambda item: str(len(item)),
)
def test_tuples_of_other_lengths(data):
    refused(data, TypeError, "tuple")


NO_INTEGERS = [
    True,
    np.True_,
    4096.0,
    np.float64(4096),
    np.array(4096.0),
    np.array(True),
    np.array([4096]),
    np.zeros(3),
    "4096",
    b"4096",
    None,
    4096j,
    [4096],
    int,
]


@pytest.mark.parametrize("pointer", NO_INTEGERS, ids=repr)
def test_pointers_of_other_types(pointer):
    refused((pointer, 16), TypeError, "pointer")
    refused((pointer, 16, "cpu"), TypeError, "pointer")


@pytest.mark.parametrize(
    "size", [item for item in NO_INTEGERS if not isinstance(item, str)], ids=repr
)
def test_sizes_of_other_types(size):
    refused((4096, size), TypeError, "size")
    refused((4096, size, "cpu"), TypeError, "size")


@pytest.mark.parametrize(
    "device", [None, 0, 1.0, b"cpu", (DeviceKind.CUDA, 0), DeviceKind.CUDA], ids=repr
)
def test_devices_of_other_types(device):
    refused((4096, 16, device), TypeError, "device")


@pytest.mark.parametrize("device", ["", "tpu", "cuda:", "cuda:x"], ids=repr)
def test_unknown_devices(device):
    text = f"data: the device must be .*, not {device!r}"
    refused((4096, 16, device), ValueError, text)
    refused((np.zeros(4), device), ValueError, text)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((0, 16), "null"),
        ((DevicePointer(0), 16), "null"),
        ((0, 16, "cuda:0"), "null"),
        ((4096, 0), "size"),
        ((4096, -1), "size"),
        ((-1, 16), "pointer"),
        ((2**64 - 15, 16), "address space"),
        ((1, 2**64), "address space"),
        ((2**64, 1), "address space"),
        ((2**70, 1), "address space"),
    ],
    ids=str,
)
def test_tuples_of_bad_values(data, words):
    refused(data, ValueError, words)


def test_end_of_the_address_space():
    assert Descriptor((2**64 - 17, 16)).metadata.size == 16


def test_tuples_within_tuples():
    refused(((4096, 16), "cpu"), TypeError, "data")
    refused(((np.zeros(4),), "cpu"), TypeError, "data")


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

"""Buffers that move, are resized, or lie about themselves: refused, and nothing of them is kept."""

import array
import asyncio
import ctypes
import gc
import io
import mmap
import sys
import types

import numpy as np
import pytest
from capsules import Exporter
from processes import until

import nixl_connect as nc

DATA = np.arange(4096, dtype=np.uint8)
START = DATA.ctypes.data


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_void_p),
        ("owner", ctypes.py_object),
        ("length", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_from_buffer = ctypes.pythonapi.PyMemoryView_FromBuffer
_from_buffer.restype = ctypes.py_object
_from_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)


@pytest.fixture
def exported():
    """Return a function that exports DATA over PEP 3118 with whatever a test says of it."""
    kept = []

    def export(length=64, itemsize=1, shape=(64,), strides=(1,), type_=b"B"):
        numbers = ctypes.c_ssize_t * len(shape)
        kept.append(
            _PyBuffer(
                start=START,
                length=length,
                itemsize=itemsize,
                readonly=1,
                ndim=len(shape),
                format=type_,
                shape=numbers(*shape),
                strides=numbers(*strides),
            )
        )
        return _from_buffer(ctypes.byref(kept[-1]))

    return export


# --- lies ----------------------------------------------------------------------------------------


def test_an_honest_export(exported):
    descriptor = nc.Descriptor(exported())
    assert (descriptor.ptr, descriptor.size) == (START, 64)


@pytest.mark.parametrize(
    "lie",
    [
        {"length": 1 << 40},
        {"length": 63},
        {"shape": (65,)},
        {"shape": (1 << 62, 1 << 62), "strides": (1, 1)},
        {"itemsize": 7, "shape": (9,), "strides": (7,)},
        {"length": 65, "itemsize": 2, "shape": (32,), "strides": (2,)},
    ],
    ids=str,
)
def test_bytes_that_the_shape_has_not(exported, lie):
    with pytest.raises(nc.ArgumentError, match="it says"):
        nc.Descriptor(exported(**lie))


def test_a_format_that_is_no_text(exported):
    with pytest.raises(nc.ArgumentError, match="format"):
        nc.Descriptor(exported(type_=b"\xff\xfe"))


def test_indices_that_are_larger_than_they_say(exported):
    """Each would be copied into eight bytes."""
    lie = exported(length=4096, itemsize=4096, shape=(1,), strides=(4096,))
    with pytest.raises(nc.ArgumentError, match="must be integers"):
        nc.Blocks(bytearray(4096), 512, lie)


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_an_offset_into_nothing(version):
    with pytest.raises(nc.ArgumentError, match="null pointer"):
        nc.Descriptor(Exporter(0, (8,), offset=64, version=version))


def test_handles():
    with pytest.raises(nc.ArgumentError, match="handles"):
        nc.Descriptor(Exporter(START, (8,), bits=64, code=3))


@pytest.mark.parametrize(("flags", "size"), [(0, 5), (4, 10)])
def test_items_of_less_than_a_byte(flags, size):
    """Packed, unless the exporter says that each has a byte to itself."""
    exporter = Exporter(START, (10,), bits=4, version=(1, 1), flags=flags)
    assert nc.Descriptor(exporter).size == size


@pytest.mark.parametrize("number", [-1, float("inf"), "0"])
def test_a_device_that_is_no_number(number):
    with pytest.raises(nc.ArgumentError, match="does not export its bytes"):
        nc.Descriptor(Exporter(START, (8,), device=(2, number), exports=(2, 0)))


def endless():
    while True:
        yield 1


def recursive():
    fields = []
    fields.append(("field", fields))
    return fields


@pytest.mark.parametrize(
    "lie",
    [
        {"shape": endless()},
        {"shape": (10**3000, 10**3000)},
        {"descr": recursive()},
        {"data": (START, np.zeros(2))},
        {"data": (10**5000, False)},
    ],
    ids=["endless", "large", "recursive", "read-only?", "pointer"],
)
def test_interfaces(lie):
    class Liar:
        __array_interface__ = {
            "shape": (8,), "typestr": "|u1", "data": (START, False), "version": 3,
        } | lie  # fmt: skip

    with pytest.raises(nc.ArgumentError, match=r"malformed|64 bits|recursion"):
        nc.Descriptor(Liar())


HUGE = 10**5000  # with more digits than Python turns into text


def test_numbers_without_end():
    descriptor = nc.Descriptor(DATA)
    for call in (
        lambda: nc.Descriptor((HUGE, 1)),
        lambda: nc.Descriptor((-HUGE, 1)),
        lambda: nc.Descriptor((START, HUGE)),
        lambda: nc.Descriptor(DATA, stream=HUGE),
        lambda: descriptor.slice(HUGE, 1),
        lambda: descriptor.slice(0, HUGE),
        lambda: setattr(descriptor, "_data_size", HUGE),
        lambda: nc.Blocks(descriptor, HUGE, range(1)),
        lambda: nc.Blocks(descriptor, 1, range(1), stride=HUGE),
        lambda: nc.Blocks(descriptor, 1, range(1 << 70)),
        lambda: nc.Blocks(descriptor, 1, range(0, 1, 1 << 70)),
        lambda: nc.Blocks(descriptor, 1, [HUGE]),
    ):
        with pytest.raises(nc.ArgumentError):
            call()


def test_more_indices_than_there_is_memory():
    with pytest.raises(MemoryError):
        nc.Blocks(DATA, 1, np.broadcast_to(np.uint8(0), (1 << 62,)))
    with pytest.raises(MemoryError):
        nc.Blocks((4096, 1 << 63), 1, range(1 << 62))


def test_a_list_of_indices_that_changes_while_it_is_read():
    class Index:
        def __index__(self):
            indices.clear()
            return 1

    indices = [Index(), 2, 3]
    assert len(nc.Blocks(DATA, 8, indices)) == 3


@pytest.mark.parametrize(
    "data",
    [np.array([None]), np.zeros((4, 4))[:, ::2], np.zeros((4, 4), "M8[s]")[:, ::2], np.zeros(0)],
    ids=["objects", "sparse", "sparse dates", "empty"],
)
def test_a_refusal_is_said_once(data):
    with pytest.raises(nc.ArgumentError) as caught:
        nc.Descriptor(data)
    assert str(caught.value).count("data: ") == 1


def test_messages_are_short():
    """Whatever is given in the place of a number is not repeated."""
    for data in ((bytes(1 << 20), 8), (8, [0] * 100_000), (8, 8, "x" * 5000), (8, 8, b"x" * 5000)):
        with pytest.raises((nc.ArgumentError, nc.ArgumentTypeError)) as caught:
            nc.Descriptor(data)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_an_engine_that_another_thread_imports(monkeypatch, name):
    """Its module is there, and its types are not yet."""
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert nc.Descriptor(Exporter(START, (8,))).size == 8
    assert nc.Descriptor(np.zeros(3, "M8[s]")).size == 24


# --- what moves ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "resize"),
    [
        (lambda: bytearray(64), lambda data: data.append(1)),
        (lambda: array.array("i", range(9)), lambda data: data.append(1)),
        (lambda: mmap.mmap(-1, 8192), lambda data: data.resize(4096)),
        (lambda: mmap.mmap(-1, 8192), lambda data: data.close()),
        (lambda: np.zeros(8), lambda data: data.resize(1000)),
    ],
    ids=["bytearray", "array", "mmap", "closed mmap", "numpy"],
)
def test_nothing_moves_while_it_is_used(make, resize):
    data = make()
    descriptor = nc.Descriptor(data)
    with pytest.raises((BufferError, ValueError)):
        resize(data)
    del descriptor
    if not isinstance(data, np.ndarray):  # which counts references
        resize(data)


def test_a_stream_of_bytes_in_memory():
    stream = io.BytesIO(b"12345678")
    descriptor = nc.Descriptor(stream.getbuffer())
    for change in (stream.close, lambda: stream.truncate(1)):
        with pytest.raises(BufferError):
            change()
    del descriptor
    stream.close()


def test_a_view_that_is_released():
    """The memory stays exported all the same."""
    data = bytearray(b"12345678")
    view = memoryview(data)
    descriptor = nc.Descriptor(view)
    view.release()
    with pytest.raises(BufferError):
        data.append(1)
    assert ctypes.string_at(descriptor.ptr, 8) == b"12345678"


def test_a_map_that_is_read_only(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    descriptor = nc.Descriptor(mapped)
    assert descriptor.is_readonly
    with nc.Connector() as connector, pytest.raises(nc.ArgumentError, match="read-only"):
        connector.create_writable_blocking(descriptor)
    del descriptor
    mapped.close()


# --- nothing is kept -----------------------------------------------------------------------------


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_an_error_that_is_kept_keeps_no_export(no_collector):
    def error(make):  # what it makes is in no frame but the library's
        with pytest.raises(nc.ArgumentError) as caught:
            nc.Descriptor(make())
        return caught.value

    exporter = Exporter(START, (8, 8), strides=(16, 1))
    data = bytearray(64)
    kept = [
        error(make)
        for make in (
            lambda: exporter,
            lambda: (data, "cuda:0"),
            lambda: (data, "cuda"),
            lambda: memoryview(data)[::2],
        )
    ]
    assert exporter.deleted == len(exporter.asked) == 1
    data.append(1)
    assert len(kept) == 4


def test_an_operation_that_is_refused_late_keeps_nothing(no_collector, make_connector):
    """Not until the garbage collector runs, which a server may have turned off."""
    given = []

    async def refused(create, kind):
        data = bytearray(64)
        given.append(data)
        with pytest.raises(kind):
            await create(nc.Descriptor(data))

    async def main():
        closed = nc.Connector()
        await closed.close()
        owner, mover = make_connector(), make_connector()
        with await owner.create_readable(nc.Descriptor(bytearray(64))) as readable:
            told = readable.metadata()
            wrong = told.model_dump()
            wrong["descriptors"][0]["ptr"] += 1 << 30
            wrong = nc.RdmaMetadata.model_validate(wrong)
            await refused(closed.create_readable, nc.ClosedError)
            await refused(lambda item: mover.begin_read(wrong, item), nc.MetadataError)
            other = make_connector()
            await refused(
                lambda item: other.begin_read(told, item, timeout=1e-9), nc.TransferTimeoutError
            )

    asyncio.run(main())

    def released():
        try:
            for data in given:
                data.append(1)
        except BufferError:
            return False
        return True

    until(released, 5)
    assert len(given) == 3

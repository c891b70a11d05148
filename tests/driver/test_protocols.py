"""Arrays on a device, over each protocol."""

import pytest
from capsules import Exporter

import nixl_connect as nc


class Interface:
    """Something with __cuda_array_interface__."""

    def __init__(self, pointer, **fields):
        self.__cuda_array_interface__ = {
            "shape": (4, 8),
            "typestr": "<f4",
            "data": (pointer, False),
            "version": 3,
        } | fields


def row(what, how):
    return pytest.mark.protocol(what, how, "a simulated CUDA driver", "located, checked")


@row("any object", "`__cuda_array_interface__`, version 3")
def test_array_interface(driver):
    start = driver.allocate(4096, device=1)
    array = Interface(start + 64)
    descriptor = nc.Descriptor(array)
    assert (descriptor.ptr, descriptor.size) == (start + 64, 128)
    assert descriptor.device == nc.Device("cuda:1")
    assert not descriptor.is_readonly
    assert descriptor._data_ref is array
    assert descriptor._memory.stream is None
    assert nc.Descriptor((array, "cuda:1")).ptr == start + 64
    with pytest.raises(nc.ArgumentError, match=r"cuda:0, but|not of cuda:0"):
        nc.Descriptor((array, "cuda:0"))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            {"version": 2}, marks=row("any object", "`__cuda_array_interface__`, version 2")
        ),
        {"strides": (32, 4)},
        {"strides": (4, 16)},
        {"typestr": "|V1"},
    ],
)
def test_forms_of_the_array_interface(driver, fields):
    start = driver.allocate(4096)
    assert nc.Descriptor(Interface(start, **fields)).size in (32, 128)


def test_read_only(driver):
    start = driver.allocate(4096)
    assert nc.Descriptor(Interface(start, data=(start, True))).is_readonly


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strides": (64, 4)}, "not contiguous"),
        ({"strides": (-32, 4)}, "not contiguous"),
        ({"strides": (4,)}, "malformed"),
        ({"shape": (0, 8)}, "at least 1 byte"),
        ({"shape": (1024, 8)}, "leave their allocation"),
        ({"typestr": "|O8"}, "Python objects"),
        ({"typestr": "nonsense"}, "malformed"),
        ({"data": None}, "malformed"),
        ({"data": (None, False)}, "int"),
        ({"mask": object()}, "mask"),
        ({"stream": 0}, "ambiguous"),
    ],
)
def test_bad_array_interfaces(driver, fields, words):
    start = driver.allocate(4096)
    with pytest.raises((nc.ArgumentError, nc.ArgumentTypeError), match=words):
        nc.Descriptor(Interface(start, **fields))


def test_the_stream_of_an_array_interface(driver):
    start = driver.allocate(4096)
    stream = driver.stream()
    assert nc.Descriptor(Interface(start, stream=stream))._memory.stream == stream
    assert nc.Descriptor(Interface(start, stream=1))._memory.stream == 1
    assert nc.Descriptor(Interface(start, stream=-1))._memory.stream is None
    assert nc.Descriptor(Interface(start, stream=stream), stream=-1)._memory.stream is None
    assert nc.Descriptor(Interface(start, stream=stream), stream=2)._memory.stream == 2


@row("any object", "`__dlpack__`")
def test_dlpack(driver):
    start = driver.allocate(4096, device=1)
    exporter = Exporter(start, (1000,), device=(2, 1), offset=16)
    descriptor = nc.Descriptor(exporter)
    assert (descriptor.ptr, descriptor.size) == (start + 16, 1000)
    assert descriptor.device == nc.Device("cuda:1")
    # The exporter has ordered its work before that stream, and so each operation waits for that.
    assert exporter.asked == [{"stream": 1}]
    assert descriptor._memory.stream == 1


def test_the_stream_of_dlpack(driver):
    start = driver.allocate(4096)
    stream = driver.stream()
    exporter = Exporter(start, (1000,), device=(2, 0))
    assert nc.Descriptor(exporter, stream=stream)._memory.stream == stream
    assert nc.Descriptor(exporter, stream=-1)._memory.stream is None
    assert exporter.asked == [{"stream": stream}, {"stream": -1}]


@row("managed memory", "`__dlpack__`")
def test_managed_memory_over_dlpack(driver):
    start = driver.allocate(4096, kind=1, managed=True)
    assert nc.Descriptor(Exporter(start, (8,), device=(13, 0))).device == nc.Device("cuda:0")


@pytest.mark.parametrize("exports", [(1, 0), (2, 1)])
def test_a_lie_about_the_device(driver, exports):
    start = driver.allocate(4096)
    with pytest.raises(nc.ArgumentError, match="but exports"):
        nc.Descriptor(Exporter(start, (8,), device=(2, 0), exports=exports))


def test_another_kind_of_device(driver):
    with pytest.raises(nc.ArgumentError, match="kind 10"):
        nc.Descriptor(Exporter(0x1000, (8,), device=(10, 0)))

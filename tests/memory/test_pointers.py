"""What a descriptor takes: tuples of a pointer or an array with a size, a device, an owner."""

import gc
import weakref

import numpy as np
import pytest
from accepting import CPU, Interface, refused

from nixl_connect import Descriptor, Device, DeviceKind


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
    ids=range(10),
)
def test_tuples_of_bad_values(data, words):
    refused(data, ValueError, words)


def test_end_of_the_address_space():
    assert Descriptor((2**64 - 17, 16)).metadata.size == 16


def test_tuples_within_tuples():
    refused(((4096, 16), "cpu"), TypeError, "data")
    refused(((np.zeros(4),), "cpu"), TypeError, "data")

"""What other libraries export over DLPack: read where it is, kept as long as needed, given back."""

import gc

import numpy as np
import pytest
from capsules import COPIED, READ_ONLY, Exporter

import nixl_connect as nc
from nixl_connect._native.dlpack import Tensor

DEADLINE = 20
DATA = np.arange(4096, dtype=np.uint8)
START = DATA.ctypes.data

VERSIONS = [None, (1, 0), (1, 1), (1, 7)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("shape", "strides", "bits", "lanes", "size"),
    [
        ((10,), None, 8, 1, 10),
        ((), None, 64, 1, 8),
        ((), (), 64, 1, 8),
        ((3, 4), None, 16, 1, 24),
        ((3, 4), (4, 1), 32, 1, 48),
        ((3, 4), (1, 3), 32, 1, 48),
        ((1, 4, 1), (99, 1, -5), 8, 1, 4),
        ((5,), (1,), 32, 4, 80),
        ((5,), None, 4, 1, 3),
        ((2, 3, 4), (12, 4, 1), 128, 1, 384),
    ],
)
def test_forms(version, shape, strides, bits, lanes, size):
    exporter = Exporter(START, shape, strides, bits=bits, lanes=lanes, offset=64, version=version)
    descriptor = nc.Descriptor(exporter)
    assert (descriptor.ptr, descriptor.size) == (START + 64, size)
    assert descriptor.device == nc.Device("cpu")
    assert not descriptor.is_readonly
    assert descriptor._data_ref is exporter
    assert exporter.deleted == 0
    del descriptor
    assert exporter.deleted == 1


def test_what_is_asked_for():
    """No copy, and no stream of the host; an old exporter is asked as it knows it."""
    for version, asked in ((None, {}), ((1, 0), {"max_version": (1, 1), "copy": False})):
        exporter = Exporter(START, (8,), version=version)
        nc.Descriptor(exporter)
        assert exporter.asked == [asked]


def test_read_only():
    exporter = Exporter(START, (8,), version=(1, 0), flags=READ_ONLY)
    descriptor = nc.Descriptor(exporter)
    assert descriptor.is_readonly
    with nc.Connector() as connector, pytest.raises(nc.ArgumentError, match="read-only"):
        connector.create_writable_blocking(descriptor)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": (4, 4), "strides": (8, 1)}, "not contiguous"),
        ({"shape": (4, 4), "strides": (4, -1)}, "not contiguous"),
        ({"shape": (4, 4), "strides": (0, 1)}, "not contiguous"),
        ({"shape": (0, 4)}, "at least 1 byte"),
        ({"shape": (1 << 62, 1 << 62, 0), "strides": (1, 2, 3)}, "at least 1 byte"),
        ({"shape": (-1, 4)}, "shape"),
        ({"shape": (1 << 62, 1 << 62)}, "leaves 64 bits"),
        ({"shape": (4,), "bits": 0}, "0 bits"),
        ({"shape": (4,), "ndim": -1}, "-1 dimensions"),
        ({"shape": (4,), "ndim": 65}, "65 dimensions"),
        ({"shape": (4,), "offset": (1 << 64) - 8}, "offset"),
        ({"shape": (1 << 57,), "bits": 64}, "leaves 64 bits"),
        ({"shape": (4,), "device": (7, 0)}, "kind 7"),
        ({"shape": (4,), "exports": (2, 0)}, "but exports"),
    ],
)
def test_refused(version, options, words):
    exporter = Exporter(START, version=version, **options)
    with pytest.raises(nc.ArgumentError, match=words):
        nc.Descriptor(exporter)
    gc.collect()
    assert exporter.deleted == len(exporter.asked)


def test_null():
    with pytest.raises(nc.ArgumentError, match="null"):
        nc.Descriptor(Exporter(0, (4,)))


def test_a_copy_is_refused():
    exporter = Exporter(START, (8,), version=(1, 0), flags=COPIED)
    with pytest.raises(nc.ArgumentError, match="copy"):
        nc.Descriptor(exporter)
    assert exporter.deleted == 1


def test_a_version_that_is_not_known():
    exporter = Exporter(START, (8,), version=(2, 0))
    with pytest.raises(nc.ArgumentError, match=r"DLPack 2\.0"):
        nc.Descriptor(exporter)
    assert exporter.deleted == 1


def test_a_capsule_is_consumed_once():
    exporter = Exporter(START, (8,))
    capsule = exporter.__dlpack__()
    tensor = Tensor(capsule)
    with pytest.raises(ValueError, match="consumed"):
        Tensor(capsule)
    assert exporter.deleted == 0
    del tensor
    assert exporter.deleted == 1


@pytest.mark.parametrize("capsule", [None, 8, b"dltensor", object()])
def test_no_capsule(capsule):
    class Liar:
        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **options):
            return capsule

    with pytest.raises(nc.ArgumentError, match="no DLPack capsule"):
        nc.Descriptor(Liar())


@pytest.mark.parametrize("device", [None, 1, (1,), ("cpu", 0), (None, None)])
def test_no_device(device):
    exporter = Exporter(START, (4,))
    exporter.device = device
    with pytest.raises(nc.ArgumentError, match=r"export|kind"):
        nc.Descriptor(exporter)


def test_an_exporter_that_refuses():
    class Refuses:
        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **options):
            raise BufferError("requires grad")

    with pytest.raises(nc.ArgumentError, match="requires grad"):
        nc.Descriptor(Refuses())


def test_it_stays_exported_until_no_operation_needs_it():
    exporter = Exporter(START, (100,))
    with nc.Connector(quarantine=0) as connector:
        operation = connector.create_readable_blocking(nc.Descriptor(exporter))
        gc.collect()
        assert exporter.deleted == 0
        operation.cancel()
        del operation
    gc.collect()
    assert exporter.deleted == 1


class Hidden:
    """An array of NumPy that has DLPack alone."""

    def __init__(self, array):
        self._array = array

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)


@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy(order):
    array = np.zeros((3, 5), np.float32, order=order)
    descriptor = nc.Descriptor(Hidden(array))
    assert (descriptor.ptr, descriptor.size) == (array.ctypes.data, array.nbytes)
    with pytest.raises(nc.ArgumentError, match="not contiguous"):
        nc.Descriptor(Hidden(array[:, 1:3][1:]))

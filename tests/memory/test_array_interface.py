"""What a descriptor takes: objects with __array_interface__."""

import gc
import weakref

import numpy as np
import pytest
from accepting import CPU, MEMORY, Interface, address, refused

from nixl_connect import Descriptor


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
    ids=range(14),
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

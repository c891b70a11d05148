"""What tests of descriptors share: where an array is, and what is refused."""

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect import Descriptor, Device

CPU = Device("cpu")


def address(array):
    return array.ctypes.data


def refused(data, kind, words):
    """Assert that `data` is refused with an error of the tree, and the built-in `kind`."""
    with pytest.raises(kind, match=words) as caught:
        Descriptor(data)
    assert isinstance(caught.value, nc.NixlConnectError), type(caught.value)


MEMORY = np.arange(64, dtype=np.uint8)


class Interface:
    """An object with an array interface of 2 x 3 four-byte items, changed by the arguments."""

    def __init__(self, without=(), **fields):
        whole = {"version": 3, "typestr": "<f4", "shape": (2, 3), "data": (address(MEMORY), False)}
        self.__array_interface__ = {
            name: value for name, value in (whole | fields).items() if name not in without
        }

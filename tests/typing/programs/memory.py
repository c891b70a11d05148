"""What a Descriptor and Blocks are made of, as type checkers see it. Checked, not run."""

from __future__ import annotations

import array
import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

import nixl_connect as nc
from nixl_connect.memory.data import Data, Stream


class Tensor:
    """With the methods of torch's, JAX's and CuPy's."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {}

    def __dlpack__(
        self,
        *,
        stream: int | None = -1,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        return None

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


class OldTensor:
    """From before DLPack 1.0."""

    def __dlpack__(self, stream: object = None) -> object:
        return None

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class Described:
    """An array of the host's with the interface as an attribute."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


class CUdeviceptr:
    """As cuda-python has it."""

    def __int__(self) -> int:
        return 1

    def getPtr(self) -> int:  # noqa: N802
        return 1


class MethodStream:
    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, 1


class PropertyStream:
    @property
    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, 1


def buffers(numbers: npt.NDArray[np.float32], shared: memoryview) -> None:
    assert_type(nc.Descriptor(b"bytes"), nc.Descriptor)
    nc.Descriptor(bytearray(8))
    nc.Descriptor(shared)
    nc.Descriptor(array.array("d", [1.0]))
    nc.Descriptor(mmap.mmap(-1, 4096))
    nc.Descriptor((ctypes.c_ubyte * 8)())
    nc.Descriptor(numbers)
    nc.Descriptor(numbers[1:3].astype(np.int64))


def tensors(tensor: Tensor, old: OldTensor, described: Described, untyped: Any) -> None:
    nc.Descriptor(tensor)
    nc.Descriptor(old)
    nc.Descriptor(described)
    nc.Descriptor(untyped)
    nc.Descriptor((tensor, "cuda:1"))
    nc.Descriptor((tensor, nc.Device("cuda:1")))


def addresses(pointer: CUdeviceptr, count: np.int64, owner: object) -> None:
    nc.Descriptor((4096, 8))
    nc.Descriptor((4096, 8, "cuda:1"))
    nc.Descriptor((4096, 8, nc.Device("cuda:1"), owner))
    nc.Descriptor((pointer, count, "cuda"))


def streams(tensor: Tensor, method: MethodStream, attribute: PropertyStream) -> None:
    nc.Descriptor(tensor, stream=method)
    nc.Descriptor(tensor, stream=attribute)
    nc.Descriptor(tensor, stream=-1)
    nc.Descriptor(tensor, stream=None)


def blocks(numbers: npt.NDArray[np.int32], memory: nc.Descriptor, some: Sequence[int]) -> None:
    assert_type(nc.Blocks(memory, 4096, range(8)), nc.Blocks)
    nc.Blocks(numbers, 4096, [3, 1, 2], stride=8192)
    nc.Blocks(bytearray(8), 4, numbers)
    nc.Blocks((4096, 8, "cuda"), 4, some, stream=1)


def wrapper(data: Data, stream: Stream | None = None) -> nc.Descriptor:
    """A function of a user's that takes what a Descriptor does."""
    return nc.Descriptor(data, stream=stream)

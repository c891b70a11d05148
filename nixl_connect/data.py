"""What a `Descriptor` takes, in the words of type checkers.

For annotations alone: nothing else here imports it at run time, where `Descriptor` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from nixl_connect.device import Device


class ArrayInterface(Protocol):
    """An array of the host's memory, as NumPy describes it."""

    @property
    def __array_interface__(self) -> Any: ...


class CudaArrayInterface(Protocol):
    """An array of a CUDA device's memory."""

    @property
    def __cuda_array_interface__(self) -> Any: ...


class DLPack(Protocol):
    """A tensor that is exported over DLPack."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __dlpack_device__(self) -> Any: ...


class CudaPointer(Protocol):
    """A pointer of cuda-python's, such as ``CUdeviceptr``."""

    def __int__(self) -> int: ...

    def getPtr(self) -> int: ...  # noqa: D102, N802, cuda-python's


class CudaStream(Protocol):
    """A stream of CUDA's, of whichever library."""

    @property
    def __cuda_stream__(self) -> Any: ...


# As text, which takes no Buffer at run time; each in one piece, which is what checkers read.
Array: TypeAlias = "Buffer | ArrayInterface | CudaArrayInterface | DLPack"
"""An object that has bytes, and says where."""

Pointer: TypeAlias = "SupportsIndex | CudaPointer"
"""An address."""

Placed: TypeAlias = "tuple[Array, Device | str]"
"""An array, and the device that it is on."""

Region: TypeAlias = "tuple[Pointer, SupportsIndex]"
"""An address, and how many bytes."""

PlacedRegion: TypeAlias = "tuple[Pointer, SupportsIndex, Device | str]"

OwnedRegion: TypeAlias = "tuple[Pointer, SupportsIndex, Device | str, object]"
"""And what keeps the memory alive."""

Data: TypeAlias = "Array | Placed | Region | PlacedRegion | OwnedRegion"
"""What a `Descriptor` is made of."""

Stream: TypeAlias = "CudaStream | CudaPointer | SupportsIndex"
"""A CUDA stream, or its handle."""

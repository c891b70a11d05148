"""What a `Descriptor` takes, in the words of type checkers. At run time `Descriptor` decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypeAlias

from nixl_connect.device import Device

if TYPE_CHECKING:
    from typing_extensions import Buffer as Buffer  # noqa: PLC0414, for others here
else:
    Buffer = object  # for those who look at annotations at run time; the package is not needed


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


Array: TypeAlias = Buffer | ArrayInterface | CudaArrayInterface | DLPack
"""An object that has bytes, and says where."""

Pointer: TypeAlias = SupportsIndex | CudaPointer
"""An address."""

Placed: TypeAlias = tuple[Array, Device | str]
"""An array, and the device that it is on."""

Region: TypeAlias = tuple[Pointer, SupportsIndex]
"""An address, and how many bytes."""

PlacedRegion: TypeAlias = tuple[Pointer, SupportsIndex, Device | str]

OwnedRegion: TypeAlias = tuple[Pointer, SupportsIndex, Device | str, object]
"""And what keeps the memory alive."""

Data: TypeAlias = Array | Placed | Region | PlacedRegion | OwnedRegion
"""What a `Descriptor` is made of."""

Stream: TypeAlias = CudaStream | CudaPointer | SupportsIndex
"""A CUDA stream, or its handle."""

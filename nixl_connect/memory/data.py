"""What a `Descriptor` accepts, for type checkers. At run time, `Descriptor` itself decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypeAlias

from nixl_connect.memory.device import Device

if TYPE_CHECKING:
    from typing_extensions import Buffer as Buffer  # noqa: PLC0414, for others here
else:
    Buffer = object  # for those who look at annotations at run time; the package is not needed


class ArrayInterface(Protocol):
    """An array in host memory, as NumPy describes it."""

    @property
    def __array_interface__(self) -> Any: ...


class CudaArrayInterface(Protocol):
    """An array in a CUDA device's memory."""

    @property
    def __cuda_array_interface__(self) -> Any: ...


class DLPack(Protocol):
    """A tensor that is exported through DLPack."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __dlpack_device__(self) -> Any: ...


class CudaPointer(Protocol):
    """A pointer from cuda-python, such as ``CUdeviceptr``."""

    def __int__(self) -> int: ...

    def getPtr(self) -> int: ...  # noqa: D102, N802, cuda-python's


class CudaStream(Protocol):
    """A CUDA stream from any library."""

    @property
    def __cuda_stream__(self) -> Any: ...


Array: TypeAlias = Buffer | ArrayInterface | CudaArrayInterface | DLPack
"""An object that holds bytes and says where they are."""

Pointer: TypeAlias = SupportsIndex | CudaPointer
"""An address."""

Placed: TypeAlias = tuple[Array, Device | str]
"""An array and the device that it is on."""

Region: TypeAlias = tuple[Pointer, SupportsIndex]
"""An address and a size in bytes."""

PlacedRegion: TypeAlias = tuple[Pointer, SupportsIndex, Device | str]

OwnedRegion: TypeAlias = tuple[Pointer, SupportsIndex, Device | str, object]
"""An address, a size, a device, and the object that keeps the memory alive."""

Data: TypeAlias = Array | Placed | Region | PlacedRegion | OwnedRegion
"""What a `Descriptor` can be created from."""

Stream: TypeAlias = CudaStream | CudaPointer | SupportsIndex
"""A CUDA stream, or its handle."""

"""A GPU as the tests use it, over cuda-python: memory of each allocator, streams, late work.

For the thread that makes it: the device's primary context is made that thread's current one.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver

KINDS = ("device", "managed", "pooled")
"""cuMemAlloc, cuMemAllocManaged, cuMemAllocAsync."""

_CODE = Path(__file__).parent / "late.ptx"
_NON_BLOCKING = 1  # a stream that does not wait for the default one, nor that for it


def call(name: str, *arguments: Any) -> Any:
    """Call the driver; return what it returns beside its result."""
    result, *values = getattr(driver, name)(*arguments)
    if result != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{name}: {result.name}")
    return values[0] if values else None


class Memory:
    """Memory of a GPU, freed with `free` or when it is dropped.

    Parameters
    ----------
    gpu : Gpu
        Which.
    size : int
        Bytes.
    kind : str
        One of `KINDS`.
    """

    def __init__(self, gpu: Gpu, size: int, kind: str = "device") -> None:
        self.pointer = 0
        self.gpu, self.size, self.kind = gpu, size, kind
        if kind == "managed":
            attach = driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL
            pointer = call("cuMemAllocManaged", size, attach.value)
        elif kind == "pooled":
            pointer = call("cuMemAllocAsync", size, 0)
            call("cuStreamSynchronize", 0)
        else:
            pointer = call("cuMemAlloc", size)
        self.pointer = int(pointer)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": (self.size,),
            "typestr": "|u1",
            "data": (self.pointer, False),
            "version": 3,
            "stream": None,
        }

    def write(self, data: np.ndarray, offset: int = 0) -> None:
        """Copy bytes of the host to it, and wait."""
        call("cuMemcpy", self.pointer + offset, data.ctypes.data, data.nbytes)
        call("cuCtxSynchronize")  # the call may return while the last of it is on its way

    def read(self, offset: int = 0, size: int | None = None) -> np.ndarray:
        """Return bytes of it, when the device has done all that it was given."""
        call("cuCtxSynchronize")
        data = np.empty(self.size if size is None else size, np.uint8)
        call("cuMemcpy", data.ctypes.data, self.pointer + offset, data.nbytes)
        return data

    def clear(self, size: int | None = None) -> None:
        """Fill it, or its first bytes, with zeros, and wait."""
        call("cuMemsetD8", self.pointer, 0, self.size if size is None else size)
        call("cuCtxSynchronize")

    def free(self) -> None:
        """Free it. Idempotent."""
        pointer, self.pointer = self.pointer, 0
        if pointer:
            self.gpu.use()
            call("cuMemFree", pointer)

    def __del__(self) -> None:
        self.free()


class Gpu:
    """A device, by its number."""

    def __init__(self, number: int = 0) -> None:
        call("cuInit", 0)
        self.number = number
        self.device = call("cuDeviceGet", number)
        self.context = call("cuDevicePrimaryCtxRetain", self.device)
        self.use()
        # The module, and its name, without a byte behind the text.
        module = call("cuModuleLoadData", _CODE.read_bytes() + b"\0")
        self._copy_late = call("cuModuleGetFunction", module, b"copy_late")

    @staticmethod
    def count() -> int:
        """Return how many there are."""
        call("cuInit", 0)
        return int(call("cuDeviceGetCount"))

    @property
    def name(self) -> str:
        """What it calls itself."""
        text: bytes = call("cuDeviceGetName", 128, self.device)
        return text.split(b"\0")[0].decode()

    @property
    def free_bytes(self) -> int:
        """How much memory is free."""
        result, free, _ = driver.cuMemGetInfo()
        assert result == driver.CUresult.CUDA_SUCCESS, result
        return int(free)

    def use(self) -> None:
        """Make its context the current one of this thread."""
        call("cuCtxSetCurrent", self.context)

    def memory(self, size: int, kind: str = "device") -> Memory:
        """Allocate."""
        return Memory(self, size, kind)

    def holding(self, data: np.ndarray, kind: str = "device") -> Memory:
        """Allocate memory with these bytes."""
        memory = Memory(self, data.nbytes, kind)
        memory.write(data)
        return memory

    def stream(self) -> int:
        """Return the handle of a new stream."""
        return int(call("cuStreamCreate", _NON_BLOCKING))

    def is_busy(self, stream: int) -> bool:
        """Whether a stream has something left to do."""
        (result,) = driver.cuStreamQuery(stream)
        return bool(result == driver.CUresult.CUDA_ERROR_NOT_READY)

    def synchronise(self, stream: int) -> None:
        """Wait for a stream."""
        call("cuStreamSynchronize", stream)

    def copy_late(self, stream: int, target: Memory, source: Memory, seconds: float) -> None:
        """Have a kernel on the stream wait so long, and then copy."""
        arguments = (target.pointer, source.pointer, source.size, int(seconds * 1e9))
        kinds = (ctypes.c_uint64,) * 4
        # One block, so that there is room for whatever moves bytes meanwhile.
        call(
            "cuLaunchKernel", self._copy_late, 1, 1, 1, 256, 1, 1, 0, stream, (arguments, kinds), 0
        )

"""Copies between registered memory of the host and a device's: the way around where there is none.

Both sides are held until the driver says that the copy is over, whatever becomes of who waits.
"""

from __future__ import annotations

from typing import Any

from nixl_connect.errors import ArgumentError
from nixl_connect.memory import cuda
from nixl_connect.memory.buffers import locate
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.memory.device import DeviceKind
from nixl_connect.permit import Permit


class Copy:
    """A copy between a descriptor's memory, from its start, and `data`, yet to be made.

    It comes after what the stream of `data` has been given by now.

    Parameters
    ----------
    descriptor : Descriptor
        Memory of the host.
    data, stream
        As for `Descriptor`.
    outward : bool
        Whether from the descriptor to `data`.

    Raises
    ------
    ArgumentError
        `data` is larger, read-only where it is written, or on a device that CUDA does not know.
    LibraryError
        `data` is on a device, and there is no cuda-python to reach it.
    CudaError
        The driver refuses the stream.
    """

    def __init__(self, descriptor: Descriptor, data: Any, stream: Any, *, outward: bool) -> None:
        memory = locate(data, stream)
        if memory.size > descriptor.size:
            raise ArgumentError(f"data: {memory.size} bytes, but there are {descriptor.size}")
        if outward and memory.readonly:
            raise ArgumentError("data is read-only memory, which nothing can be copied to")
        if memory.device.kind is DeviceKind.XPU:
            raise ArgumentError(f"data: memory of {memory.device} cannot be copied by CUDA")
        self._on_device = memory.device.kind is DeviceKind.CUDA
        if self._on_device:
            cuda.require("copying from and to a device")
        self._held = descriptor, memory
        ends = descriptor.ptr, memory.pointer
        self._target, self._source = reversed(ends) if outward else ends
        self._fence: cuda.Fence | None = None
        if memory.stream is not None:
            self._fence = cuda.Fence([(memory.device, memory.stream)])

    def run(self, permit: Permit) -> None:
        """Make it, and return when it is made. On any thread, but not an event loop's.

        Raises
        ------
        TransferTimeoutError
            The stream's work was not done in time, and nothing has been copied.
        CudaError
            That work failed, or the copy.
        OperationCancelledError
            The permit was revoked before the copy was begun.
        """
        if self._fence is not None:
            self._fence.wait(permit)
        permit.check()
        _, memory = self._held
        if self._on_device:
            cuda.copy(self._target, self._source, memory.size, memory.device.id, self._held)
        else:
            import ctypes  # late: most programs never copy

            ctypes.memmove(self._target, self._source, memory.size)  # without the GIL

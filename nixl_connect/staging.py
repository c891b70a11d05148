"""Copies between registered memory of the host and a device's: the way around where there is none.

Who holds what: a copy that a stream has been given cannot be recalled, and so both sides are held
until the driver says that it is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from typing import Any

from nixl_connect import cuda
from nixl_connect.buffers import locate
from nixl_connect.descriptor import Descriptor
from nixl_connect.device import DeviceKind
from nixl_connect.errors import ArgumentError, CudaError
from nixl_connect.offload import start_thread
from nixl_connect.permit import Permit


class Copy:
    """A copy between a descriptor's memory, from its start, and `data`. On a device, it has begun.

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
    CudaError
        The driver refuses.
    """

    def __init__(self, descriptor: Descriptor, data: Any, stream: Any, *, outward: bool) -> None:
        memory = locate(data, stream)
        if memory.size > descriptor.size:
            raise ArgumentError(f"data: {memory.size} bytes, but there are {descriptor.size}")
        if outward and memory.readonly:
            raise ArgumentError("data is read-only memory, which nothing can be copied to")
        if memory.device.kind is DeviceKind.XPU:
            raise ArgumentError(f"data: memory of {memory.device} cannot be copied by CUDA")
        self._held = descriptor, memory
        ends = descriptor.ptr, memory.pointer
        self._target, self._source = reversed(ends) if outward else ends
        self._fence: cuda.Fence | None = None
        if memory.device.kind is DeviceKind.CUDA or memory.stream is not None:
            # An array whose caller has synchronised is on no stream: that of all will do.
            at = cuda.LEGACY_STREAM if memory.stream is None else memory.stream
            _running.add(self)
            try:
                self._fence = cuda.copy(self._target, self._source, memory.size, memory.device, at)
            except CudaError:
                _running.discard(self)
                raise

    def finish(self, timeout: float = math.inf) -> None:
        """Wait, or copy what is all on the host.

        Raises
        ------
        CudaError
            The work on the stream failed.
        TransferTimeoutError
            It is not done in time; both sides are still held.
        """
        if self._fence is None:
            ctypes.memmove(self._target, self._source, self._held[1].size)  # without the GIL
            return
        try:
            self._fence.wait(Permit(timeout))
        except CudaError:
            _running.discard(self)  # nothing runs any more
            raise
        _running.discard(self)

    def wait(self, timeout: float) -> None:
        """Do as `finish`; what ends the wait early does not end the copy: a thread sees to that."""
        try:
            self.finish(timeout)
        except BaseException:
            if self in _running:
                start_thread(self._abandoned)
            raise

    def _abandoned(self) -> None:
        with contextlib.suppress(CudaError):  # nobody is left to be told
            self.finish()


# Copies that a stream may still make: held here, whatever happens to those who wait.
_running: set[Copy] = set()

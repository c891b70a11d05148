"""A block of a pool: registered host memory, lent out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nixl_connect.checks import seconds
from nixl_connect.engine.offload import on_thread
from nixl_connect.errors import ClosedError
from nixl_connect.memory.data import Data, Stream
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.memory.staging import Copy
from nixl_connect.permit import Permit

if TYPE_CHECKING:
    from typing_extensions import Self


class Lease:
    """A block of a pool, kept for as long as anything needs it.

    Created by `HostPool.acquire`. The block returns to the pool when the lease has been released or
    dropped, no descriptor, `view`, array or copy of it is left, and no peer can touch it any more.
    A slow peer's late write therefore never reaches another lease.
    """

    __slots__ = ("_descriptor", "_memory", "_nbytes", "_refuse_after_fork")

    def __init__(self, memory: Any, nbytes: int, refuse_after_fork: Callable[[], None]) -> None:
        self._memory = memory
        self._nbytes = nbytes
        self._refuse_after_fork = refuse_after_fork
        self._descriptor: Descriptor | None = Descriptor(memory)

    @property
    def nbytes(self) -> int:
        """Number of bytes that were requested."""
        return self._nbytes

    @property
    def descriptor(self) -> Descriptor:
        """Descriptor of the memory, for operations.

        Raises
        ------
        ClosedError
            The lease has been released.
        """
        if self._descriptor is None:
            raise ClosedError("the lease has been released")
        return self._descriptor

    @property
    def view(self) -> memoryview:
        """Writable view of the memory, such as for ``numpy.frombuffer``. Not zeroed.

        Raises
        ------
        ClosedError
            The lease has been released.
        """
        if self._memory is None:
            raise ClosedError("the lease has been released")
        return memoryview(self._memory)

    async def copy_from(
        self, data: Data, *, stream: Stream | None = None, timeout: float | None = None
    ) -> None:
        """Copy other memory, typically a device's, to the start of the lease.

        If the network cannot reach a GPU's memory, go by way of the host: copy to a lease, and let
        the peer read from that.

        Parameters
        ----------
        data : object
            As for `Descriptor`. Work queued on its stream is waited for first.
        stream : object, optional
            As for `Descriptor`.
        timeout : float, optional
            Maximum seconds to wait for the stream; no limit by default. A copy that has begun
            cannot be cancelled: it keeps both sides alive until it is done, even if nothing waits
            for it any more.

        Raises
        ------
        ArgumentError
            The data has more bytes than the lease. Also a ValueError.
        CudaError
            The driver refuses, or work on the stream failed. Also a RuntimeError.
        TransferTimeoutError
            The stream's work was not done in time, and nothing was copied. Also a TimeoutError.
        LibraryError
            The data is on a device, but there is no cuda-python to reach it. Also an ImportError.
        ClosedError
            The lease has been released, or is of the process that this one was forked from. Also a
            RuntimeError.
        """
        await _copied(self._copy(data, stream, outward=False), _permit(timeout))

    async def copy_to(
        self, data: Data, *, stream: Stream | None = None, timeout: float | None = None
    ) -> None:
        """Fill other memory with the first bytes of the lease: the inverse of `copy_from`.

        The bytes have arrived when it returns: work queued on any stream from then on sees them.

        Raises
        ------
        ArgumentError
            The data has more bytes than the lease, or is read-only. Also a ValueError.
        CudaError, TransferTimeoutError, LibraryError, ClosedError
            As for `copy_from`.
        """
        await _copied(self._copy(data, stream, outward=True), _permit(timeout))

    def copy_from_blocking(
        self, data: Data, *, stream: Stream | None = None, timeout: float | None = None
    ) -> None:
        """Fill the lease: the blocking form of `copy_from`."""
        self._copy(data, stream, outward=False).run(_permit(timeout))

    def copy_to_blocking(
        self, data: Data, *, stream: Stream | None = None, timeout: float | None = None
    ) -> None:
        """Fill other memory: the blocking form of `copy_to`."""
        self._copy(data, stream, outward=True).run(_permit(timeout))

    def _copy(self, data: Data, stream: Stream | None, *, outward: bool) -> Copy:
        """Return a copy to be made."""
        self._refuse_after_fork()
        return Copy(self.descriptor, data, stream, outward=outward)

    def release(self) -> None:
        """Release the lease. Idempotent."""
        self._memory = self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def __reduce__(self) -> Any:
        raise TypeError("a Lease cannot be copied or pickled; send an operation's metadata")

    def __repr__(self) -> str:
        return f"Lease({self._nbytes} bytes{', released' if self._memory is None else ''})"


def _permit(timeout: float | None) -> Permit:
    return Permit(math.inf if timeout is None else seconds("timeout", timeout))


async def _copied(copy: Copy, permit: Permit) -> None:
    """Have a thread make a copy; if nobody waits for it before it has begun, it is not made."""
    try:
        await on_thread(lambda: copy.run(permit))
    except BaseException:
        permit.revoke()
        raise

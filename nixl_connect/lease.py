"""A block of a pool: registered memory of the host, lent out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nixl_connect.checks import seconds
from nixl_connect.data import Data, Stream
from nixl_connect.descriptor import Descriptor
from nixl_connect.errors import ClosedError
from nixl_connect.offload import on_thread
from nixl_connect.permit import Permit
from nixl_connect.staging import Copy

if TYPE_CHECKING:
    from typing_extensions import Self


class Lease:
    """A block of a pool, for as long as anybody needs it.

    The block goes back to the pool when the lease has been released or dropped, no descriptor,
    `view`, array or copy of it is left, and no peer can touch it any more: also a late write, of a
    peer that was slow, meets no other lease. Made by `HostPool.acquire`.
    """

    __slots__ = ("_descriptor", "_memory", "_nbytes")

    def __init__(self, memory: Any, nbytes: int) -> None:
        self._memory = memory
        self._nbytes = nbytes
        self._descriptor: Descriptor | None = Descriptor(memory)

    @property
    def nbytes(self) -> int:
        """Bytes that were asked for."""
        return self._nbytes

    @property
    def descriptor(self) -> Descriptor:
        """The memory, for operations.

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
        """The memory, writable: for ``numpy.frombuffer``, say. Its content is whatever it was.

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
        """Fill the lease, from its start, with the bytes of other memory, of a device above all.

        Where the network does not reach a GPU's memory, this is half of the way around: copy to a
        lease, and have the peer read from that.

        Parameters
        ----------
        data : object
            As for `Descriptor`. What its stream has been given is waited for first.
        stream : object, optional
            As for `Descriptor`.
        timeout : float, optional
            Most seconds to wait for the stream. A copy that has begun cannot be recalled: it keeps
            both sides alive until it is done, whatever becomes of whoever waits for it.

        Raises
        ------
        ArgumentError
            More bytes than the lease has. A ValueError.
        CudaError
            The driver refuses, or the work on the stream failed. A RuntimeError.
        TransferTimeoutError
            The stream's work was not done in time, and nothing was copied. A TimeoutError.
        LibraryError
            The data is on a device, and there is no cuda-python to reach it. An ImportError.
        ClosedError
            The lease has been released.
        """
        await _copied(Copy(self.descriptor, data, stream, outward=False), _permit(timeout))

    async def copy_to(
        self, data: Data, *, stream: Stream | None = None, timeout: float | None = None
    ) -> None:
        """Fill other memory with the first bytes of the lease: the inverse of `copy_from`.

        The bytes are there when it returns, for whatever is given to any stream from then on.

        Raises
        ------
        ArgumentError
            More bytes than the lease has, or read-only. A ValueError.
        CudaError, TransferTimeoutError, LibraryError, ClosedError
            As for `copy_from`.
        """
        await _copied(Copy(self.descriptor, data, stream, outward=True), _permit(timeout))

    def copy_from_blocking(
        self, data: Data, *, stream: Stream | None = None, timeout: float | None = None
    ) -> None:
        """Fill the lease: `copy_from` without an event loop."""
        Copy(self.descriptor, data, stream, outward=False).run(_permit(timeout))

    def copy_to_blocking(
        self, data: Data, *, stream: Stream | None = None, timeout: float | None = None
    ) -> None:
        """Fill other memory: `copy_to` without an event loop."""
        Copy(self.descriptor, data, stream, outward=True).run(_permit(timeout))

    def release(self) -> None:
        """Give it up. Idempotent."""
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

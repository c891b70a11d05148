"""The connector: what a program makes once and does everything with."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from nixl_connect.active import ActiveOperation, ReadOperation, WriteOperation
from nixl_connect.base import AbstractOperation, Descriptors
from nixl_connect.blocking import BlockingTwins
from nixl_connect.connection import Connection
from nixl_connect.metadata import RdmaMetadata
from nixl_connect.options import Options, worker_name
from nixl_connect.passive import ReadableOperation, WritableOperation
from nixl_connect.prepared import PreparedRead, PreparedTransfer, PreparedWrite

_Prepared = TypeVar("_Prepared", bound=PreparedTransfer)
_Operation = TypeVar("_Operation", bound=AbstractOperation)


class Connector(BlockingTwins):
    """Makes operations. One is enough for a process; it may be used from every loop and thread.

    Nothing is opened before the first operation. Every coroutine has a blocking twin, whose name
    ends in ``_blocking``, for programs with no event loop.

    Parameters
    ----------
    worker_id : str, optional
        Name of the worker, unique among those that exchange data; random by default.
    keys : bytes or sequence of bytes, optional
        Shared secrets of 16 bytes or more. The first seals the metadata that is handed out, all are
        accepted; metadata that is unsealed, altered or expired is refused. Without keys a
        malicious peer is not covered.
    seal_lifetime : float
        Seconds for which the metadata that this connector seals is accepted, from the making of
        its operation; what peers seal has their lifetime. Clocks of the machines should agree
        within a fraction of it.
    timeout : float
        Seconds after which an operation that has not ended fails, unless it is given its own.
        Infinity, not 0, for never: with 0 every operation fails.
    quarantine : float
        Seconds for which the memory of a passive operation is kept alive after the operation was
        abandoned, if its metadata had been handed out: a slow peer may still touch it. At least the
        `timeout` of the peers, unless they are known to be gone.
    drain : float
        Most seconds that `close` waits for transfers in flight.
    progress_interval : float
        Seconds between looks at the network while no operation is going on, so that peers which
        connect, leave or ask are answered; 0 for none.
    backends : sequence of str, or mapping of str to mapping of str to str
        NIXL's transports to start, and their options.
    max_descriptors : int
        Most descriptors in one operation.
    max_metadata_bytes : int
        Most bytes of NIXL's metadata to accept from a peer.
    max_peer_regions : int
        Most regions to keep of one peer before it is reconnected.
    max_quarantine_bytes : int, optional
        Bytes of memory in quarantine from which on `create_*` raises `QuarantineError`; a quarter
        of the machine's memory if not given.

    Raises
    ------
    ArgumentError
        An option is out of range. A ValueError.
    ArgumentTypeError
        An argument is of the wrong type. A TypeError.
    """

    def __init__(
        self,
        worker_id: str | None = None,
        *,
        keys: bytes | Sequence[bytes] | None = None,
        seal_lifetime: float = 300.0,
        timeout: float = 300.0,
        quarantine: float = 300.0,
        drain: float = 5.0,
        progress_interval: float = 0.1,
        backends: Sequence[str] | Mapping[str, Mapping[str, str]] = ("UCX",),
        max_descriptors: int = 1_000_000,
        max_metadata_bytes: int = 4 * 1024 * 1024,
        max_peer_regions: int = 65_536,
        max_quarantine_bytes: int | None = None,
    ) -> None:
        self._options = Options(
            keys=keys,
            seal_lifetime=seal_lifetime,
            timeout=timeout,
            quarantine=quarantine,
            drain=drain,
            progress_interval=progress_interval,
            backends=backends,
            max_descriptors=max_descriptors,
            max_metadata_bytes=max_metadata_bytes,
            max_peer_regions=max_peer_regions,
            max_quarantine_bytes=max_quarantine_bytes,
        )
        self._worker_id = worker_name(worker_id)
        self._number = 1
        self._hostname = socket.gethostname()
        super().__init__()

    @property
    def name(self) -> str:
        """The worker id."""
        return self._worker_id

    @property
    def hostname(self) -> str:
        """Name of this host."""
        return self._hostname

    @property
    def is_cuda_available(self) -> bool:
        """Whether there is a GPU, and cuda-python to reach it. Initialises the driver."""
        from nixl_connect import cuda

        return cuda.is_available()

    async def initialize(self) -> None:
        """Do nothing: kept for programs that call it."""

    # --- operations -------------------------------------------------------------------------

    async def create_readable(
        self, local_descriptors: Descriptors, *, timeout: float | None = None
    ) -> ReadableOperation:
        """Let a peer read memory.

        Parameters
        ----------
        local_descriptors : Descriptor, Blocks or a sequence of these
            The memory, all of one kind.
        timeout : float, optional
            Seconds after which the operation fails; the connector's default if not given.

        Returns
        -------
        ReadableOperation
            Send its metadata to the peer, which begins a read, and wait for its completion.

        Raises
        ------
        ArgumentTypeError
            `local_descriptors` is not a `Descriptor`, `Blocks` or a sequence of these. A TypeError.
        ArgumentError
            It is empty, too long, or mixes kinds of memory. A ValueError.
        RegistrationError
            NIXL refuses the memory. A RuntimeError.
        CudaError
            The work on a descriptor's stream failed. A RuntimeError.
        QuarantineError
            Too much memory is held for operations that were abandoned. A RuntimeError.
        """
        connection = await self._create_connection()
        return await self._begun(
            ReadableOperation(connection, local_descriptors, timeout=timeout, _begin=False)
        )

    async def create_writable(
        self, local_descriptors: Descriptors, *, timeout: float | None = None
    ) -> WritableOperation:
        """Let a peer write to memory.

        Parameters
        ----------
        local_descriptors : Descriptor, Blocks or a sequence of these
            The memory, all of one kind and not read-only.
        timeout : float, optional
            Seconds after which the operation fails; the connector's default if not given.

        Returns
        -------
        WritableOperation
            Send its metadata to the peer, which begins a write, and wait for its completion.

        Raises
        ------
        ArgumentTypeError
            `local_descriptors` is not a `Descriptor`, `Blocks` or a sequence of these. A TypeError.
        ArgumentError
            It is empty, too long, or mixes kinds of memory; or some is read-only. A ValueError.
        RegistrationError
            NIXL refuses the memory. A RuntimeError.
        CudaError
            The work on a descriptor's stream failed. A RuntimeError.
        QuarantineError
            Too much memory is held for operations that were abandoned. A RuntimeError.
        """
        connection = await self._create_connection()
        return await self._begun(
            WritableOperation(connection, local_descriptors, timeout=timeout, _begin=False)
        )

    async def begin_read(
        self,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
    ) -> ReadOperation:
        """Begin to read a peer's memory. The transfer has started when this returns.

        Parameters
        ----------
        remote_metadata : RdmaMetadata
            That of the peer's readable operation.
        local_descriptors : Descriptor, Blocks or a sequence of these
            Where to put the data: as many as the peer has, each of the same size.
        timeout : float, optional
            Seconds after which the operation fails; the connector's default if not given.

        Raises
        ------
        PairingError
            The metadata is not that of a readable operation. A RuntimeError and a ValueError.
        MetadataError
            The metadata is malformed or over a limit. A ValueError.
        AuthenticationError
            The connector has keys, and none of them fits. A PermissionError.
        ArgumentTypeError
            An argument is of the wrong type. A TypeError.
        ArgumentError
            The descriptors do not fit the peer's, or cannot be received in. A ValueError.
        CudaError
            The work on a descriptor's stream failed. A RuntimeError.
        TransferError
            NIXL refuses the peer's metadata or the transfer. A RuntimeError.
        """
        connection = await self._create_connection()
        return await self._begun(
            ReadOperation(
                connection, remote_metadata, local_descriptors, timeout=timeout, _begin=False
            )
        )

    async def begin_write(
        self,
        local_descriptors: Descriptors,
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
    ) -> WriteOperation:
        """Begin to write to a peer's memory. The transfer has started when this returns.

        Parameters
        ----------
        local_descriptors : Descriptor, Blocks or a sequence of these
            The data: as many as the peer has, each of the same size.
        remote_metadata : RdmaMetadata
            That of the peer's writable operation.
        timeout : float, optional
            Seconds after which the operation fails; the connector's default if not given.

        Raises
        ------
        PairingError, MetadataError, AuthenticationError, TransferError
            As for `begin_read`.
        """
        connection = await self._create_connection()
        return await self._begun(
            WriteOperation(
                connection, local_descriptors, remote_metadata, timeout=timeout, _begin=False
            )
        )

    async def prepare_read(
        self,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
    ) -> PreparedRead:
        """Prepare a read of a peer's memory that can be made again and again.

        Parameters
        ----------
        remote_metadata : RdmaMetadata
            That of the peer's readable operation, which should have a timeout that lasts: it is
            complete when the prepared read is closed.
        local_descriptors : Descriptor, Blocks or a sequence of these
            Where to put the data: as many as the peer has, each of the same size.
        timeout : float, optional
            Seconds after which each transfer fails; the connector's default if not given.

        Raises
        ------
        PairingError, MetadataError, AuthenticationError, TransferError
            As for `begin_read`.
        """
        connection = await self._create_connection()
        return await self._prepared(
            PreparedRead,
            ReadOperation(
                connection, remote_metadata, local_descriptors, timeout=timeout, _begin=False
            ),
        )

    async def prepare_write(
        self,
        local_descriptors: Descriptors,
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
    ) -> PreparedWrite:
        """Prepare a write to a peer's memory that can be made again and again.

        As `prepare_read`, for the peer's writable operation.
        """
        connection = await self._create_connection()
        return await self._prepared(
            PreparedWrite,
            WriteOperation(
                connection, local_descriptors, remote_metadata, timeout=timeout, _begin=False
            ),
        )

    async def _begun(self, operation: _Operation) -> _Operation:
        """Begin an operation, or have it cancelled."""
        timeout = operation._timeout
        try:
            fence = operation._fence()
            if fence is not None:
                await self._beginnings.begin(fence.wait, fence.name, timeout)
            await self._beginnings.begin(operation._begin, operation._peer_name, timeout)
        except BaseException:
            operation.cancel()
            raise
        return operation

    async def _prepared(self, kind: type[_Prepared], operation: ActiveOperation) -> _Prepared:
        """Prepare an operation's transfer."""
        return await self._beginnings.begin(
            functools.partial(kind, operation, self._beginnings),
            operation._peer_name,
            operation._timeout,
        )

    def _connect(self) -> Connection:
        return Connection(self, self._number)

    def _after_fork(self) -> None:
        super()._after_fork()
        # The agents of a parent and its children must not have one name.
        self._number = os.getpid()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Connector):
            return NotImplemented
        return self._worker_id == other._worker_id

    def __hash__(self) -> int:
        return hash(self._worker_id)

    def __reduce__(self) -> Any:
        raise TypeError("a Connector cannot be copied or pickled; make one in the other process")

    def __str__(self) -> str:
        return self._worker_id

    def __repr__(self) -> str:
        return f"Connector(worker_id={self._worker_id!r}, hostname={self._hostname!r})"

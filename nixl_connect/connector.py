"""The connector: a program creates one and uses it for everything."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from nixl_connect.checks import count, seconds
from nixl_connect.engine.connection import Connection, Opener
from nixl_connect.engine.offload import Beginnings, on_thread, start_or_run
from nixl_connect.engine.options import MONITOR, Options, worker_name
from nixl_connect.engine.statistics import (
    OperationReport,
    PeerReport,
    Statistics,
    operations,
    peers,
    statistics,
)
from nixl_connect.errors import ClosedError
from nixl_connect.operations.active import ActiveOperation, ReadOperation, WriteOperation
from nixl_connect.operations.base import AbstractOperation, Descriptors
from nixl_connect.operations.parts import Parts
from nixl_connect.operations.passive import ReadableOperation, WritableOperation
from nixl_connect.operations.prepared import PreparedRead, PreparedTransfer, PreparedWrite
from nixl_connect.permit import PATIENT, Permit, interruption
from nixl_connect.wire.metadata import RdmaMetadata

_Prepared = TypeVar("_Prepared", bound=PreparedTransfer)
# Rather than Self: editors that use jedi know only this as the class of whoever is entered.
_Self = TypeVar("_Self", bound="Connector")

# By identity: connectors of one name are equal.
_all: weakref.WeakValueDictionary[int, Connector] = weakref.WeakValueDictionary()


class Connector(Opener):
    """Creates operations. One per process is enough; every event loop and thread may use it.

    Nothing is opened before the first operation. Every coroutine that does something has a blocking
    twin, whose name ends in ``_blocking``, for programs without an event loop.

    Parameters
    ----------
    worker_id : str, optional
        Name of the worker, which must be unique among those that exchange data; random by default.
    keys : bytes or sequence of bytes, optional
        Shared secrets of 16 bytes or more. The first one seals the metadata that is handed out, and
        metadata sealed with any of them is accepted. Metadata that is unsealed, altered or expired
        is refused. Without keys, there is no protection against malicious peers.
    seal_lifetime : float
        Seconds for which the metadata that this connector seals is accepted, from the creation of
        its operation. Metadata that peers seal has the lifetime that they set. The machines' clocks
        should agree to within a fraction of it.
    timeout : float
        Seconds after which an operation that has not ended fails, unless it is given its own
        timeout. For no deadline, use infinity, not 0, which makes every operation fail.
    quarantine : float
        Seconds for which the memory of a passive operation is kept alive after the operation was
        abandoned, if its metadata had been handed out: a slow peer may still touch it. Use at least
        the `timeout` of the peers, unless they are known to be gone.
    drain : float
        Maximum seconds that `close` waits for transfers in flight.
    progress_interval : float
        Seconds between polls of the network while no operation is in progress, so that peers which
        connect, disconnect or send requests are answered; 0 turns these polls off.
    peer_silence : float, optional
        Seconds, at least 3, after which a passive operation fails if a peer of another host has
        begun to move its bytes and then says nothing more: it says every second that it goes on. By
        default such an operation waits for its deadline. A peer of this host is missed without it.
    backends : sequence of str, or mapping of str to mapping of str to str
        NIXL's transports to start, or a mapping of transports to their options.
    max_descriptors : int
        Maximum number of descriptors in one operation.
    max_metadata_bytes : int
        Maximum size in bytes of NIXL's metadata to accept from a peer.
    max_peer_regions : int
        Maximum number of regions to keep for one peer before it is reconnected.
    max_quarantine_bytes : int, optional
        Bytes of memory in quarantine at which `create_*` raises `QuarantineError`; by default a
        quarter of the machine's memory.

    Raises
    ------
    ArgumentError
        An option is out of range. Also a ValueError.
    ArgumentTypeError
        An argument is of the wrong type. Also a TypeError.
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
        peer_silence: float | None = None,
        backends: Sequence[str] | Mapping[str, Mapping[str, str]] = ("UCX",),
        max_descriptors: int = 1_000_000,
        max_metadata_bytes: int = 4 * 1024 * 1024,
        max_peer_regions: int = 65_536,
        max_quarantine_bytes: int | None = None,
    ) -> None:
        self._options = Options(locals())  # first, so that these are the arguments alone
        self._worker_id = worker_name(worker_id)
        self._number = 1
        self._hostname = os.uname().nodename
        self._lock = threading.RLock()
        self._beginnings = Beginnings()
        self._connection: Connection | None = None
        self._live: Connection | None = None
        """The same, as long as it is not closed."""
        self._opening = False
        self._closed = False
        _all[id(self)] = self

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
        from nixl_connect.memory import cuda

        return cuda.is_available()

    async def initialize(self) -> None:
        """Do nothing: kept for programs that call it. `open` starts NIXL."""

    # --- operations ---------------------------------------------------------------------------

    async def create_readable(
        self,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        transfers: int | None = 1,
    ) -> ReadableOperation:
        """Let a peer read memory.

        Parameters
        ----------
        local_descriptors : Descriptor, Blocks or a sequence of these
            The memory, which must all be of one kind.
        timeout : float, optional
            Seconds after which the operation fails; by default the connector's `timeout`.
        transfers : int, optional
            How many transfers complete the operation. With more than 1, its metadata may be used so
            often, by as many peers, or repeatedly by one; what fails does not count. With None it
            may be used until `finish`, and there is no deadline unless one is given.

        Returns
        -------
        ReadableOperation
            Send its metadata to the peer, which then begins a read, and wait for its completion.

        Raises
        ------
        ArgumentTypeError
            `local_descriptors` is not a `Descriptor`, `Blocks` or a sequence of these. Also a
            TypeError.
        ArgumentError
            `local_descriptors` is empty, too long, or mixes kinds of memory; or `transfers` is less
            than 1. Also a ValueError.
        RegistrationError
            NIXL refuses to register the memory. Also a RuntimeError.
        CudaError
            Work on a descriptor's stream failed. Also a RuntimeError.
        QuarantineError
            Abandoned operations hold too much memory. Also a RuntimeError.
        """
        connection = self._live or await self._create_connection()
        operation = ReadableOperation(
            connection, local_descriptors, timeout=timeout, transfers=transfers, _patient=False
        )
        if operation._native is None:
            await self._begin(operation)
        return operation

    async def create_writable(
        self,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        transfers: int | None = 1,
    ) -> WritableOperation:
        """Let a peer write to memory.

        Parameters
        ----------
        local_descriptors : Descriptor, Blocks or a sequence of these
            The memory, which must all be of one kind and not read-only.
        timeout : float, optional
            Seconds after which the operation fails; by default the connector's `timeout`.
        transfers : int, optional
            How many transfers complete the operation. With more than 1, its metadata may be used so
            often, by as many peers, or repeatedly by one; what fails does not count. With None it
            may be used until `finish`, and there is no deadline unless one is given.

        Returns
        -------
        WritableOperation
            Send its metadata to the peer, which then begins a write, and wait for its completion.

        Raises
        ------
        ArgumentTypeError
            `local_descriptors` is not a `Descriptor`, `Blocks` or a sequence of these. Also a
            TypeError.
        ArgumentError
            `local_descriptors` is empty, too long, mixes kinds of memory, or contains read-only
            memory or the same bytes twice; or `transfers` is less than 1. Also a ValueError.
        RegistrationError
            NIXL refuses to register the memory. Also a RuntimeError.
        CudaError
            Work on a descriptor's stream failed. Also a RuntimeError.
        QuarantineError
            Abandoned operations hold too much memory. Also a RuntimeError.
        """
        connection = self._live or await self._create_connection()
        operation = WritableOperation(
            connection, local_descriptors, timeout=timeout, transfers=transfers, _patient=False
        )
        if operation._native is None:
            await self._begin(operation)
        return operation

    async def begin_read(
        self,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
    ) -> ReadOperation:
        """Begin reading a peer's memory. The transfer has started when this returns.

        Parameters
        ----------
        remote_metadata : RdmaMetadata
            Metadata of the peer's readable operation.
        local_descriptors : Descriptor, Blocks or a sequence of these
            Where to put the data: as many descriptors as the peer has, of the same sizes.
        timeout : float, optional
            Seconds after which the operation fails; by default the connector's `timeout`.
        parts : sequence of int or of (int, int, int), optional
            Parts of the peer's memory, one for each local descriptor: indices of its descriptors,
            or (index, offset, length) with bytes within one. By default all of it, in order.

        Raises
        ------
        PairingError
            The metadata is not from a readable operation. Also a RuntimeError and a ValueError.
        MetadataError
            The metadata is malformed or exceeds a limit. Also a ValueError.
        AuthenticationError
            The connector has keys, and the metadata has no valid seal. Also a PermissionError.
        ArgumentTypeError
            An argument is of the wrong type. Also a TypeError.
        ArgumentError
            The descriptors do not match the peer's or `parts`, cannot receive data, or overlap: two
            that are written, or one that is written with one of this process that is read; or
            `parts` are empty, out of range or overlap. Also a ValueError.
        CudaError
            Work on a descriptor's stream failed. Also a RuntimeError.
        TransferError
            NIXL refuses the peer's metadata or the transfer. Also a RuntimeError.
        """
        connection = self._live or await self._create_connection()
        operation = ReadOperation(
            connection,
            remote_metadata,
            local_descriptors,
            timeout=timeout,
            parts=parts,
            _patient=False,
        )
        if operation._native is None:
            await self._begin(operation)
        return operation

    async def begin_write(
        self,
        local_descriptors: Descriptors,
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
    ) -> WriteOperation:
        """Begin writing to a peer's memory. The transfer has started when this returns.

        Parameters
        ----------
        local_descriptors : Descriptor, Blocks or a sequence of these
            The data: as many descriptors as the peer has, of the same sizes.
        remote_metadata : RdmaMetadata
            Metadata of the peer's writable operation.
        timeout : float, optional
            Seconds after which the operation fails; by default the connector's `timeout`.
        parts : sequence of int or of (int, int, int), optional
            As for `begin_read`.

        Raises
        ------
        PairingError, MetadataError, AuthenticationError, ArgumentTypeError, ArgumentError
            As for `begin_read`.
        CudaError, TransferError
            As for `begin_read`.
        """
        connection = self._live or await self._create_connection()
        operation = WriteOperation(
            connection,
            local_descriptors,
            remote_metadata,
            timeout=timeout,
            parts=parts,
            _patient=False,
        )
        if operation._native is None:
            await self._begin(operation)
        return operation

    async def prepare_read(
        self,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
    ) -> PreparedRead:
        """Prepare a repeatable read of a peer's memory.

        Parameters
        ----------
        remote_metadata : RdmaMetadata
            Metadata of the peer's readable operation. That operation completes when the prepared
            read is closed, so its timeout should cover all transfers.
        local_descriptors : Descriptor, Blocks or a sequence of these
            Where to put the data: as many descriptors as the peer has, of the same sizes.
        timeout : float, optional
            Seconds after which each transfer fails; by default the connector's `timeout`.
        parts : sequence of int or of (int, int, int), optional
            As for `begin_read`.

        Raises
        ------
        PairingError, MetadataError, AuthenticationError, ArgumentTypeError, ArgumentError
            As for `begin_read`.
        CudaError, TransferError
            As for `begin_read`.
        """
        connection = self._live or await self._create_connection()
        return await self._prepared(
            PreparedRead,
            ReadOperation(
                connection,
                remote_metadata,
                local_descriptors,
                timeout=timeout,
                parts=parts,
                _begin=False,
            ),
        )

    async def prepare_write(
        self,
        local_descriptors: Descriptors,
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
    ) -> PreparedWrite:
        """Prepare a repeatable write to a peer's memory.

        Like `prepare_read`, but for the peer's writable operation.
        """
        connection = self._live or await self._create_connection()
        return await self._prepared(
            PreparedWrite,
            WriteOperation(
                connection,
                local_descriptors,
                remote_metadata,
                timeout=timeout,
                parts=parts,
                _begin=False,
            ),
        )

    # --- the same, blocking -------------------------------------------------------------------

    def create_readable_blocking(
        self,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        transfers: int | None = 1,
    ) -> ReadableOperation:
        """Let a peer read memory: the blocking form of `create_readable`."""
        connection = self._live or self._open()
        return ReadableOperation(
            connection, local_descriptors, timeout=timeout, transfers=transfers
        )

    def create_writable_blocking(
        self,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        transfers: int | None = 1,
    ) -> WritableOperation:
        """Let a peer write to memory: the blocking form of `create_writable`."""
        connection = self._live or self._open()
        return WritableOperation(
            connection, local_descriptors, timeout=timeout, transfers=transfers
        )

    def begin_read_blocking(
        self,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
    ) -> ReadOperation:
        """Begin reading a peer's memory: the blocking form of `begin_read`."""
        connection = self._live or self._open()
        return ReadOperation(
            connection, remote_metadata, local_descriptors, timeout=timeout, parts=parts
        )

    def begin_write_blocking(
        self,
        local_descriptors: Descriptors,
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
    ) -> WriteOperation:
        """Begin writing to a peer's memory: the blocking form of `begin_write`."""
        connection = self._live or self._open()
        return WriteOperation(
            connection, local_descriptors, remote_metadata, timeout=timeout, parts=parts
        )

    def prepare_read_blocking(
        self,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
    ) -> PreparedRead:
        """Prepare a read: the blocking form of `prepare_read`."""
        return PreparedRead(
            ReadOperation(
                self._live or self._open(),
                remote_metadata,
                local_descriptors,
                timeout=timeout,
                parts=parts,
                _begin=False,
            ),
            self._beginnings,
            PATIENT,
        )

    def prepare_write_blocking(
        self,
        local_descriptors: Descriptors,
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
        parts: Parts | None = None,
    ) -> PreparedWrite:
        """Prepare a write: the blocking form of `prepare_write`."""
        return PreparedWrite(
            WriteOperation(
                self._live or self._open(),
                local_descriptors,
                remote_metadata,
                timeout=timeout,
                parts=parts,
                _begin=False,
            ),
            self._beginnings,
            PATIENT,
        )

    # --- reports ------------------------------------------------------------------------------

    def stats(self) -> Statistics:
        """Return what the connector holds and has done; an empty dict before its first operation.

        Returns
        -------
        Statistics
            A dict with counts of operations, registrations, peers and notifications. Sizes are in
            bytes, durations in seconds. The documentation has a table of the keys.
        """
        connection = self._connection
        # The type leaves out the empty one: who asks first would have to look at every key.
        return cast("Statistics", {}) if connection is None else statistics(connection._engine)

    def operations(
        self, min_age: float = 0.0, *, limit: int | None = None
    ) -> list[OperationReport]:
        """Report the operations that have not ended, or whose memory a peer may still touch.

        Parameters
        ----------
        min_age : float
            Report only operations that are at least this many seconds old.
        limit : int, optional
            Report at most this many, choosing the oldest.

        Returns
        -------
        list of OperationReport
            Oldest first. The `str` of each is a line for a log.
        """
        min_age = seconds("min_age", min_age)
        if limit is not None:
            limit = count("limit", limit)
        connection = self._connection
        return [] if connection is None else operations(connection._engine, min_age, limit)

    def peers(self) -> list[PeerReport]:
        """Report the peers that the connector is connected to.

        Returns
        -------
        list of PeerReport
            Most recently used first.
        """
        connection = self._connection
        return [] if connection is None else peers(connection._engine)

    # --- opening and closing ------------------------------------------------------------------

    async def open(self: _Self) -> _Self:  # noqa: PYI019
        """Start NIXL now, rather than with the first operation, which then takes no longer.

        Idempotent. Takes some tenths of a second, on another thread: the event loop goes on.

        Returns
        -------
        Connector
            Itself.

        Raises
        ------
        LibraryError
            NIXL's library cannot be loaded. Also an ImportError.
        BackendError
            NIXL cannot start the agent or a transport. Also a RuntimeError.
        ClosedError
            The connector is closed. Also a RuntimeError.
        """
        await self._create_connection()
        return self

    def open_blocking(self: _Self) -> _Self:  # noqa: PYI019
        """Start NIXL now: the blocking form of `open`."""
        self._open()
        return self

    async def warmup(self) -> None:
        """Start NIXL now: `open`, by the name that ``dynamo.nixl_connect`` has for it."""
        await self._create_connection()

    async def close(self) -> None:
        """Cancel what has not ended, drain transfers in flight, and release everything. Idempotent.

        Waits for transfers in flight for at most the connector's `drain`. Memory in quarantine is
        kept until its quarantine ends.
        """
        await on_thread(self.close_blocking, start=start_or_run)

    def close_blocking(self) -> None:
        """Close the connector: the blocking form of `close`."""
        with self._lock:
            self._closed = True
            self._live = None
            connection = self._connection
        if connection is not None:
            connection._engine.close()

    async def __aenter__(self: _Self) -> _Self:  # noqa: PYI019
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __enter__(self: _Self) -> _Self:  # noqa: PYI019
        return self

    def __exit__(self, *exception: object) -> None:
        self.close_blocking()

    async def _create_connection(self) -> Connection:
        """Return the connection, opened on another thread at the first call."""
        connection = self._live
        if connection is None:
            connection = await self._beginnings.begin(self._open)
        return connection

    def _open(self, permit: Permit = PATIENT) -> Connection:
        """Return the connection, opened at the first call."""
        live = self._live  # read once: another thread may close it
        if live is not None:
            return live
        permit.need_patience()
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self!r} is closed")
            if self._opening:
                raise interruption("opens the connector")
            if self._connection is None:
                self._opening = True
                try:
                    connection = Connection(self, self._number)
                finally:
                    self._opening = False
                self._connection = self._live = connection
                if self._closed:  # by a signal handler, meanwhile
                    self._live = None
                    connection._engine.close()
                    return self._open()
                if MONITOR in os.environ:
                    from nixl_connect import monitor

                    monitor.serve_if_asked()
            return self._connection

    def _after_fork(self) -> None:
        """Be of use in the child of a fork, if nothing was opened before."""
        # A thread that is not in the child may have held them.
        self._lock = threading.RLock()
        self._beginnings = Beginnings()
        # The agents of a parent and its children must not have one name.
        self._number = os.getpid()

    async def _begin(self, operation: AbstractOperation) -> None:
        """Begin an operation off the loop."""
        timeout = operation._timeout
        try:
            fence = operation._fence()
            if fence is not None:
                await self._beginnings.begin(fence.wait, fence.name, timeout)
            if fence is None or not operation._try_again():
                await self._beginnings.begin(operation._begin, operation._peer_name, timeout)
        except BaseException:
            operation.cancel()
            raise

    async def _prepared(self, kind: type[_Prepared], operation: ActiveOperation) -> _Prepared:
        """Prepare an operation's transfer."""
        return await self._beginnings.begin(
            functools.partial(kind, operation, self._beginnings),
            operation._peer_name,
            operation._timeout,
        )

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


def _after_fork_in_child() -> None:
    for reference in _all.valuerefs():  # a list: other threads may have been making connectors
        connector = reference()
        if connector is not None:
            connector._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

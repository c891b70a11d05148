"""The blocking twins of a connector's coroutines, for programs without an event loop."""

from __future__ import annotations

from nixl_connect.lifecycle import Lifecycle
from nixl_connect.operations.active import ReadOperation, WriteOperation
from nixl_connect.operations.base import Descriptors
from nixl_connect.operations.passive import ReadableOperation, WritableOperation
from nixl_connect.operations.prepared import PreparedRead, PreparedWrite
from nixl_connect.permit import PATIENT
from nixl_connect.wire.metadata import RdmaMetadata


class BlockingTwins(Lifecycle):
    """Creates operations on the calling thread, blocking where that takes long."""

    def create_readable_blocking(
        self, local_descriptors: Descriptors, *, timeout: float | None = None
    ) -> ReadableOperation:
        """Let a peer read memory: the blocking form of `create_readable`."""
        connection = self._live or self._open()
        return ReadableOperation(connection, local_descriptors, timeout=timeout)

    def create_writable_blocking(
        self, local_descriptors: Descriptors, *, timeout: float | None = None
    ) -> WritableOperation:
        """Let a peer write to memory: the blocking form of `create_writable`."""
        connection = self._live or self._open()
        return WritableOperation(connection, local_descriptors, timeout=timeout)

    def begin_read_blocking(
        self,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
    ) -> ReadOperation:
        """Begin reading a peer's memory: the blocking form of `begin_read`."""
        connection = self._live or self._open()
        return ReadOperation(connection, remote_metadata, local_descriptors, timeout=timeout)

    def begin_write_blocking(
        self,
        local_descriptors: Descriptors,
        remote_metadata: RdmaMetadata,
        *,
        timeout: float | None = None,
    ) -> WriteOperation:
        """Begin writing to a peer's memory: the blocking form of `begin_write`."""
        connection = self._live or self._open()
        return WriteOperation(connection, local_descriptors, remote_metadata, timeout=timeout)

    def prepare_read_blocking(
        self,
        remote_metadata: RdmaMetadata,
        local_descriptors: Descriptors,
        *,
        timeout: float | None = None,
    ) -> PreparedRead:
        """Prepare a read: the blocking form of `prepare_read`."""
        return PreparedRead(
            ReadOperation(
                self._live or self._open(),
                remote_metadata,
                local_descriptors,
                timeout=timeout,
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
    ) -> PreparedWrite:
        """Prepare a write: the blocking form of `prepare_write`."""
        return PreparedWrite(
            WriteOperation(
                self._live or self._open(),
                local_descriptors,
                remote_metadata,
                timeout=timeout,
                _begin=False,
            ),
            self._beginnings,
            PATIENT,
        )

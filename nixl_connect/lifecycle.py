"""The life of a connector: its connection is opened when first needed, and closed once."""

from __future__ import annotations

import os
import threading
import weakref
from abc import abstractmethod
from typing import TypeVar, cast

from nixl_connect.checks import count, seconds
from nixl_connect.engine.connection import Connection, Opener
from nixl_connect.engine.offload import Beginnings, on_thread, start_or_run
from nixl_connect.engine.options import MONITOR
from nixl_connect.engine.statistics import (
    OperationReport,
    PeerReport,
    Statistics,
    operations,
    peers,
    statistics,
)
from nixl_connect.errors import ClosedError
from nixl_connect.permit import PATIENT, Permit, interruption

# Rather than Self: editors that use jedi know only this as the class of whoever is entered.
_Self = TypeVar("_Self", bound="Lifecycle")

# By identity: connectors of one name are equal.
_all: weakref.WeakValueDictionary[int, Lifecycle] = weakref.WeakValueDictionary()


class Lifecycle(Opener):
    """Opens a connection, closes it, and reports what it does."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._beginnings = Beginnings()
        self._connection: Connection | None = None
        self._live: Connection | None = None
        """The same, as long as it is not closed."""
        self._opening = False
        self._closed = False
        _all[id(self)] = self

    @abstractmethod
    def _connect(self) -> Connection:
        """Make the connection. May take long."""

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
                    connection = self._connect()
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

    async def __aenter__(self: _Self) -> _Self:  # noqa: PYI019
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __enter__(self: _Self) -> _Self:  # noqa: PYI019
        return self

    def __exit__(self, *exception: object) -> None:
        self.close_blocking()


def _connectors() -> list[Lifecycle]:
    # Not `values()`: other threads may make connectors meanwhile.
    found = (reference() for reference in _all.valuerefs())
    return [connector for connector in found if connector is not None]


def _after_fork_in_child() -> None:
    for connector in _connectors():
        connector._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

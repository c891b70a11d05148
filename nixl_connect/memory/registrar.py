"""With what memory is registered, as far as descriptors know it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from nixl_connect._native.hold import Hold
from nixl_connect.permit import PATIENT, Permit


class _Engine(Protocol):
    """What registers memory; see `engine.Engine`."""

    @property
    def closed(self) -> bool: ...

    @property
    def forked(self) -> bool: ...

    def register(self, row: tuple[int, int, int], mem_type: int, owner: object) -> Hold: ...

    def registers(self, row: tuple[int, int, int], mem_type: int) -> bool: ...

    def refuse_after_fork(self) -> None: ...


class AbstractConnection:
    """What memory is registered with: a `Connection`."""

    _engine: _Engine


class AbstractConnector(ABC):
    """What has one: a `Connector`."""

    _connection: AbstractConnection | None
    """None until it is opened."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the worker."""

    @abstractmethod
    def _open(self, permit: Permit = PATIENT) -> AbstractConnection:
        """Return its connection, opened at the first call."""

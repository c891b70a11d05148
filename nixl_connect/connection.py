"""One connection: a NIXL agent of this process. And a remote: one of another."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING

from nixl_connect._native import envelope
from nixl_connect._native.envelope import Envelope
from nixl_connect.codec import decode_nixl_metadata
from nixl_connect.engine import Engine
from nixl_connect.errors import (
    ArgumentError,
    ArgumentTypeError,
    AuthenticationError,
    MetadataError,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from nixl_connect.connector import Connector


class Connection:
    """A NIXL agent, opened.

    Connectors make their own, one each; there is rarely a reason to make another.

    Parameters
    ----------
    connector : Connector
        Whose name and options the connection takes.
    number : int
        At least 1; with the connector's name it makes the agent's.

    Raises
    ------
    ArgumentTypeError
        `connector` is no Connector, or `number` no integer. A TypeError.
    ArgumentError
        `number` is below 1. A ValueError.
    LibraryError
        NIXL's library cannot be loaded. An ImportError.
    BackendError
        NIXL cannot start the agent or a transport. A RuntimeError.
    """

    def __init__(self, connector: Connector, number: int) -> None:
        from nixl_connect.connector import Connector

        if not isinstance(connector, Connector):
            raise ArgumentTypeError(
                f"connector must be a Connector, not {type(connector).__name__}"
            )
        if not isinstance(number, int) or isinstance(number, bool):
            raise ArgumentTypeError(f"number must be an int, not {number!r}")
        if number < 1:
            raise ArgumentError(f"number must be at least 1, not {number}")
        self._connector = connector
        self._name = f"{connector.name}-{number}"
        self._engine = Engine(self._name, connector._options)
        # When the connection is dropped the engine closes, on a thread of its own. At the
        # interpreter's exit the engine sees to that itself.
        weakref.finalize(self, self._engine.keeper.request_close).atexit = False

    @property
    def connector(self) -> Connector:
        """The connector that the connection belongs to."""
        return self._connector

    @property
    def name(self) -> str:
        """Name of the agent, by which peers know it."""
        return self._name

    @property
    def metadata(self) -> bytes:
        """NIXL's metadata of the whole agent: how to reach it, and all that is registered now."""
        return self._engine.metadata()

    async def initialize(self) -> None:
        """Do nothing: a connection is ready when it is made."""

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"Connection(name={self._name!r})"


class Remote:
    """A peer, as one connection sees it.

    Parameters
    ----------
    connection : Connection
        The local side.
    nixl_metadata : bytes or str
        NIXL's metadata of the peer, or its wire form. It is loaded; the peer stays known when the
        remote is released.

    Raises
    ------
    MetadataError
        Malformed, or over a limit.
    AuthenticationError
        The connector has keys: then peers are known only by sealed metadata.
    """

    __slots__ = ("_connection", "_name")

    def __init__(self, connection: Connection, nixl_metadata: bytes | str) -> None:
        if not isinstance(connection, Connection):
            raise ArgumentTypeError(
                f"connection must be a Connection, not {type(connection).__name__}"
            )
        if not isinstance(nixl_metadata, (bytes, str)):
            raise ArgumentTypeError(
                f"nixl_metadata must be bytes or str, not {type(nixl_metadata).__name__}"
            )
        options = connection._engine.options
        if options.seal is not None:
            raise AuthenticationError("nixl_metadata by itself has no seal")
        if isinstance(nixl_metadata, str):
            nixl_metadata, described = read_nixl_metadata(nixl_metadata, options.max_metadata_bytes)
        else:
            described = parse_nixl_metadata(nixl_metadata)
        connection._engine.meet(described, nixl_metadata)
        self._connection = connection
        self._name = described.agent

    @classmethod
    def _known(cls, connection: Connection, name: str) -> Remote:
        """Return the remote of a peer that an operation has loaded."""
        remote = cls.__new__(cls)
        remote._connection = connection
        remote._name = name
        return remote

    @property
    def connection(self) -> Connection:
        """The local side."""
        return self._connection

    @property
    def name(self) -> str:
        """Name of the peer's agent."""
        return self._name

    def _release(self) -> None:
        """Do nothing: peers are kept, since they are dear to connect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._release()

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"Remote(name={self._name!r}, connection={self._connection.name!r})"


def read_nixl_metadata(text: str, limit: int) -> tuple[bytes, Envelope]:
    """Return NIXL's metadata of its wire form, as it is and parsed.

    Raises
    ------
    MetadataError
        Malformed, or over `limit` bytes.
    """
    if len(text) <= _SHORT:
        try:
            return _read_again(text, min(limit, _SHORT))
        except MetadataError:
            pass  # malformed, or long once it is inflated
    return _read(text, limit)


def _read(text: str, limit: int) -> tuple[bytes, Envelope]:
    blob = decode_nixl_metadata(text, limit)
    return blob, parse_nixl_metadata(blob)


# Peers hand out the same memory again and again. What is short enough to keep (bytes), inflated
# too, is remembered; no metadata that is malformed is.
_SHORT = 4096
_read_again = functools.lru_cache(maxsize=256)(_read)


def parse_nixl_metadata(blob: bytes) -> Envelope:
    """Parse NIXL's metadata strictly.

    Raises
    ------
    MetadataError
        Anything in it is not as NIXL writes it.
    """
    try:
        described = envelope.parse(blob)
    except ValueError as error:
        raise MetadataError(f"nixl_metadata: {error}") from None
    for section in described.sections:
        if len(section.regions) < 2:
            continue
        keys = {item[:3]: item[3] for item in section.regions}
        if len(keys) < len(section.regions) and any(
            keys[item[:3]] != item[3] for item in section.regions
        ):
            # NIXL would refuse the second, and the peer with it for good.
            raise MetadataError("nixl_metadata: one region under two keys")
    return described

"""A connection is a NIXL agent of this process; a remote is one of another process."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from nixl_connect._native.ordinary import Ordinary
from nixl_connect.checks import count, instance
from nixl_connect.engine.engine import Engine
from nixl_connect.engine.options import Options
from nixl_connect.errors import ArgumentTypeError, AuthenticationError, MetadataError
from nixl_connect.memory.registrar import AbstractConnection, AbstractConnector
from nixl_connect.wire.codec import (
    decode_nixl_metadata,
    parse_nixl_metadata,
    read_nixl_metadata,
)

if TYPE_CHECKING:
    from typing_extensions import Self

# As `Connector` has it by default.
_MOST_DECODED = 4 * 1024 * 1024


class Opener(AbstractConnector):
    """What opens connections: a `Connector`."""

    _options: Options


class Connection(AbstractConnection):
    """An open NIXL agent.

    Each connector creates its own; there is rarely a reason to create another.

    Parameters
    ----------
    connector : Connector
        Connector whose name and options the connection uses.
    number : int
        At least 1. The agent's name consists of the connector's name and this number.

    Raises
    ------
    ArgumentTypeError
        `connector` is not a Connector, or `number` is not an integer. Also a TypeError.
    ArgumentError
        `number` is below 1. Also a ValueError.
    LibraryError
        NIXL's library cannot be loaded. Also an ImportError.
    BackendError
        NIXL cannot start the agent or a transport. Also a RuntimeError.
    """

    _engine: Engine

    def __init__(self, connector: Opener, number: int) -> None:
        instance("connector", connector, AbstractConnector)
        number = count("number", number)
        self._connector = connector
        self._name = f"{connector.name}-{number}"
        self._engine = Engine(self._name, connector._options)
        # For descriptors, which note where they were used.
        self._reference: weakref.ref[AbstractConnection] = weakref.ref(self)
        self._ordinary: Ordinary = self._engine.starter.ordinary
        self._ordinary.reference = self._reference
        # When the connection is dropped the engine closes, on a thread of its own. At the
        # interpreter's exit the engine sees to that itself.
        weakref.finalize(self, self._engine.keeper.request_close).atexit = False

    @property
    def connector(self) -> Opener:
        """The connector that the connection belongs to."""
        return self._connector

    @property
    def name(self) -> str:
        """Name of the agent, by which peers know it."""
        return self._name

    @property
    def metadata(self) -> bytes:
        """NIXL's metadata for the whole agent: how to reach it, and all that is registered now."""
        return self._engine.metadata()

    async def initialize(self) -> None:
        """Do nothing: a connection is ready as soon as it is created."""

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
        NIXL's metadata of the peer, or its wire form. It is loaded, and the peer stays known after
        the remote is released.

    Raises
    ------
    MetadataError
        The metadata is malformed or exceeds a limit.
    AuthenticationError
        The connector has keys, so it accepts only sealed metadata.
    """

    __slots__ = ("_connection", "_name")

    def __init__(self, connection: Connection, nixl_metadata: bytes | str) -> None:
        instance("connection", connection, Connection)
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

    @staticmethod
    def decode_metadata(nixl_metadata: bytes | str) -> bytes:
        """Return NIXL's metadata from its wire form, without looking into it or at a peer.

        Parameters
        ----------
        nixl_metadata : bytes or str
            `RdmaMetadata.nixl_metadata`: ``b64:`` and base64, or hexadecimal. Bytes are returned as
            they are.

        Raises
        ------
        ArgumentTypeError
            It is neither. Also a TypeError.
        MetadataError
            It is empty, malformed, or of more than 4 MiB. Also a ValueError.
        """
        if not isinstance(nixl_metadata, (bytes, str)):
            raise ArgumentTypeError(
                f"nixl_metadata must be bytes or str, not {type(nixl_metadata).__name__}"
            )
        if not nixl_metadata:
            raise MetadataError("nixl_metadata must not be empty")
        if isinstance(nixl_metadata, bytes):
            return nixl_metadata
        return decode_nixl_metadata(nixl_metadata, _MOST_DECODED)

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
        """Do nothing: peers are kept, since connecting is expensive."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._release()

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"Remote(name={self._name!r}, connection={self._connection.name!r})"

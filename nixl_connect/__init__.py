"""NIXL's one-sided transfers between processes and machines, with and without asyncio.

One side makes memory readable or writable and hands out metadata over any channel. The other side
reads from that memory or writes to it, directly from memory to memory. Both await completion.
"""

from nixl_connect._version import __version__
from nixl_connect.connector import Connector
from nixl_connect.engine.connection import Connection, Remote
from nixl_connect.engine.statistics import OperationReport, PeerReport
from nixl_connect.errors import (
    ArgumentError,
    ArgumentTypeError,
    AuthenticationError,
    BackendError,
    ClosedError,
    CudaError,
    InternalError,
    LibraryError,
    MetadataError,
    NixlConnectError,
    OperationCancelledError,
    PairingError,
    PeerLostError,
    PoolExhaustedError,
    PoolMemoryError,
    QuarantineError,
    RegistrationError,
    StateError,
    TransferError,
    TransferTimeoutError,
    WaitTimeoutError,
)
from nixl_connect.memory.blocks import Blocks
from nixl_connect.memory.descriptor import Descriptor, SerializedDescriptor
from nixl_connect.memory.device import Device, DeviceKind
from nixl_connect.operations.active import ActiveOperation, ReadOperation, WriteOperation
from nixl_connect.operations.base import AbstractOperation
from nixl_connect.operations.passive import PassiveOperation, ReadableOperation, WritableOperation
from nixl_connect.operations.prepared import PreparedRead, PreparedTransfer, PreparedWrite
from nixl_connect.pool.lease import Lease
from nixl_connect.pool.pool import HostPool
from nixl_connect.status import OperationKind, OperationStatus
from nixl_connect.wire.metadata import RdmaMetadata

__all__ = [
    "AbstractOperation",
    "ActiveOperation",
    "ArgumentError",
    "ArgumentTypeError",
    "AuthenticationError",
    "BackendError",
    "Blocks",
    "ClosedError",
    "Connection",
    "Connector",
    "CudaError",
    "Descriptor",
    "Device",
    "DeviceKind",
    "HostPool",
    "InternalError",
    "Lease",
    "LibraryError",
    "MetadataError",
    "NixlConnectError",
    "OperationCancelledError",
    "OperationKind",
    "OperationReport",
    "OperationStatus",
    "PairingError",
    "PassiveOperation",
    "PeerLostError",
    "PeerReport",
    "PoolExhaustedError",
    "PoolMemoryError",
    "PreparedRead",
    "PreparedTransfer",
    "PreparedWrite",
    "QuarantineError",
    "RdmaMetadata",
    "ReadOperation",
    "ReadableOperation",
    "RegistrationError",
    "Remote",
    "SerializedDescriptor",
    "StateError",
    "TransferError",
    "TransferTimeoutError",
    "WaitTimeoutError",
    "WritableOperation",
    "WriteOperation",
    "__version__",
]


def __dir__() -> list[str]:
    """Return what programs may use, without the packages that it is made of."""
    own = {name for name in globals() if name.startswith("__")}
    modules = {"errors", "monitor", "prometheus"} & globals().keys()
    return sorted({*__all__, *own, *modules})

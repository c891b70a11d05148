"""Every error that this package raises on purpose.

All derive from `NixlConnectError`, and each concrete error also from the built-in one that a Python
programmer would expect to catch. The package's own bugs derive only from `InternalError`, so that
catching the base class does not hide them.
"""


class NixlConnectError(Exception):
    """Base class of the errors that callers, peers and machines cause."""


class InternalError(Exception):
    """A bug in this package. Please report it."""


class ArgumentError(NixlConnectError, ValueError):
    """An argument has an invalid value; nothing was done."""


class ArgumentTypeError(NixlConnectError, TypeError):
    """An argument has the wrong type; nothing was done."""


class PairingError(NixlConnectError, RuntimeError, ValueError):
    """The operation does not match the metadata's, such as a read of a writable operation."""


class MetadataError(NixlConnectError, ValueError):
    """Metadata is malformed, truncated or exceeds a limit; none of it was used.

    The message, which may quote some of the metadata, has at most 500 characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 500 else message[:497] + "...")


class AuthenticationError(NixlConnectError, PermissionError):
    """Metadata is not sealed with an accepted key, was altered, or has expired."""


class ClosedError(NixlConnectError, RuntimeError):
    """The connector is closed, or belongs to the parent of this process."""


class StateError(NixlConnectError, RuntimeError):
    """The operation is not in a state that allows this."""


class RegistrationError(NixlConnectError, RuntimeError):
    """NIXL refused to register memory, or a descriptor belongs to another connection."""


class QuarantineError(NixlConnectError, RuntimeError):
    """Abandoned operations hold so much memory that no more may be offered to peers."""


class OperationCancelledError(NixlConnectError, RuntimeError):
    """The operation was cancelled: here, by the peer, or because the connector closed."""


class WaitTimeoutError(NixlConnectError, TimeoutError):
    """The wait's timeout passed. The operation continues."""


class PoolExhaustedError(NixlConnectError, TimeoutError):
    """No memory was returned to the pool in time."""


class PoolMemoryError(NixlConnectError, MemoryError):
    """The system has no more memory for the pool, or none in one piece."""


class TransferError(NixlConnectError, RuntimeError):
    """The transfer failed.

    Attributes
    ----------
    status : str
        NIXL's status, such as ``"ERR_BACKEND"``; empty if NIXL reported none.
    peer : str
        Name of the peer; empty if it is not known.
    """

    def __init__(self, message: str, *, status: str = "", peer: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.peer = peer


class PeerLostError(TransferError, ConnectionError):
    """The connection to the peer broke, or could not be made.

    Its process ended, it withdrew connector or memory, or its host cannot be reached.
    """


class TransferTimeoutError(TransferError, TimeoutError):
    """The operation's own deadline passed, and the operation has failed."""


class CudaError(NixlConnectError, RuntimeError):
    """The CUDA driver refused something, or work on a descriptor's stream failed."""


class BackendError(NixlConnectError, RuntimeError):
    """NIXL could not start an agent or a transport."""


class LibraryError(NixlConnectError, ImportError):
    """NIXL's C library, or an optional package, is missing, cannot be loaded, or is too old."""

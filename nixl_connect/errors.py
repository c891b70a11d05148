"""Every error that this package raises on purpose.

All derive from `NixlConnectError`, and each concrete one also from the built-in that a Python
programmer would catch. The package's own bugs derive from `InternalError` alone, so that catching
the base does not hide them.
"""


class NixlConnectError(Exception):
    """Base of the errors that callers, peers and machines cause."""


class InternalError(Exception):
    """A bug in this package. Please report it."""


class ArgumentError(NixlConnectError, ValueError):
    """An argument has a value that cannot be used; nothing was done."""


class ArgumentTypeError(NixlConnectError, TypeError):
    """An argument is of a type that cannot be used; nothing was done."""


class PairingError(NixlConnectError, RuntimeError, ValueError):
    """The operation does not pair with that of the metadata, such as a read with a writable."""


class MetadataError(NixlConnectError, ValueError):
    """Metadata is malformed, truncated or over a limit; nothing of it was used.

    The text, which may repeat some of the metadata, has no more than 500 characters.
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
    """Abandoned operations keep so much memory that no further one may be offered to peers."""


class OperationCancelledError(NixlConnectError, RuntimeError):
    """The operation was cancelled: here, by the peer, or because the connector closed."""


class WaitTimeoutError(NixlConnectError, TimeoutError):
    """The wait's timeout passed. The operation goes on."""


class PoolExhaustedError(NixlConnectError, TimeoutError):
    """No memory of a pool came back in time."""


class TransferError(NixlConnectError, RuntimeError):
    """The transfer failed.

    Attributes
    ----------
    status : str
        NIXL's status, such as ``"ERR_BACKEND"``; empty where NIXL reported none.
    peer : str
        Name of the peer; empty where it is not known.
    """

    def __init__(self, message: str, *, status: str = "", peer: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.peer = peer


class PeerLostError(TransferError, ConnectionError):
    """The connection to the peer broke: its process ended, or it withdrew connector or memory."""


class TransferTimeoutError(TransferError, TimeoutError):
    """The operation's own deadline passed, and the operation has failed."""


class CudaError(NixlConnectError, RuntimeError):
    """CUDA's driver refused something, or work on a descriptor's stream failed."""


class BackendError(NixlConnectError, RuntimeError):
    """NIXL could not start an agent or a transport."""


class LibraryError(NixlConnectError, ImportError):
    """NIXL's C library is missing, cannot be loaded, or is too old."""

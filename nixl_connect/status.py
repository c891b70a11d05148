"""What an operation does, and which state it is in."""

from enum import IntEnum


class OperationKind(IntEnum):
    """Direction of a transfer, as the active side sees it."""

    UNSPECIFIED = 0
    READ = 1
    WRITE = 2

    def __str__(self) -> str:
        return "<invalid>" if self is OperationKind.UNSPECIFIED else self.name


class OperationStatus(IntEnum):
    """Status of an operation. The last three are final."""

    UNINITIALIZED = 0
    """Under construction."""

    INITIALIZED = 1
    """Ready: a passive operation is waiting for its peer, a transfer is about to be posted."""

    IN_PROGRESS = 2
    """The transfer has been posted."""

    COMPLETE = 3
    """All bytes have arrived."""

    CANCELLED = 4
    """Given up by its owner, by the peer, or because the connector closed."""

    ERRORED = 5
    """Failed."""

    def __str__(self) -> str:
        return _SHORT_NAMES[self]

    @property
    def is_final(self) -> bool:
        """Whether the status cannot change any more."""
        return self >= OperationStatus.COMPLETE


_SHORT_NAMES = ("UNINIT", "INIT", "PROC", "DONE", "STOP", "ERR")

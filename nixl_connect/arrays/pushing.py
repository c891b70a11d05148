"""Arrays that a peer expects, pushed."""

from __future__ import annotations

from typing import Any

from nixl_connect.arrays.given import Arrays, collected, is_sequence
from nixl_connect.arrays.moving import MOST_ARRAYS, Moving, Names
from nixl_connect.connector import Connector
from nixl_connect.errors import ArgumentError
from nixl_connect.status import OperationKind


class Pushing(Moving):
    """A push of a program's arrays."""

    def __init__(
        self,
        connector: Connector,
        message: Any,
        arrays: Any,
        only: Any,
        max_arrays: int,
        *,
        copy: bool,
    ) -> None:
        super().__init__(connector, message, OperationKind.WRITE, only, max_arrays)
        given = collected(arrays, copy=copy)
        sequence = is_sequence(arrays)
        self.place(self.matched(given, "arrays", sequence=sequence, copy=copy), "arrays")
        if not self.descriptors:
            if any(entry.nbytes for entry in self._read.entries):
                raise ArgumentError("arrays: none of those to push has a byte")
            self.nothing()


async def push(
    connector: Connector,
    message: str | bytes,
    arrays: Arrays,
    *,
    only: Names | None = None,
    timeout: float | None = None,
    copy: bool = False,
    max_arrays: int = MOST_ARRAYS,
) -> None:
    """Push arrays to a peer that expects them, by one operation.

    Parameters
    ----------
    connector : Connector
        Connector to use.
    message : str or bytes
        The message of the peer's `expect`, in either form. It is not trusted.
    arrays : mapping or sequence
        Arrays of the names, shapes and types that are expected; otherwise as for `offer`.
    only : str, int or iterable of these, optional
        Names of the arrays to push, which are then all that `arrays` has.
    timeout : float, optional
        Seconds after which the push fails; by default the connector's `timeout`.
    copy : bool
        Whether to copy arrays that are not contiguous, or not in the order that is expected, which
        are refused otherwise.
    max_arrays : int
        How many arrays the message may have.

    Raises
    ------
    ArgumentError
        Names, shapes or types do not agree with the message; nothing has been moved. Also a
        ValueError.
    PairingError
        The message is of `offer`. Also a RuntimeError and a ValueError.
    MetadataError, AuthenticationError, ArgumentTypeError
        As for `fetch`.
    PeerLostError, TransferTimeoutError, TransferError, OperationCancelledError
        As for `AbstractOperation.wait_for_completion`.
    """
    plan = Pushing(connector, message, arrays, only, max_arrays, copy=copy)
    operation = await connector.begin_write(
        plan.descriptors, plan.metadata, timeout=timeout, parts=plan.parts
    )
    with operation:
        await operation.wait_for_completion()


def push_blocking(
    connector: Connector,
    message: str | bytes,
    arrays: Arrays,
    *,
    only: Names | None = None,
    timeout: float | None = None,
    copy: bool = False,
    max_arrays: int = MOST_ARRAYS,
) -> None:
    """Push arrays to a peer that expects them: the blocking form of `push`."""
    plan = Pushing(connector, message, arrays, only, max_arrays, copy=copy)
    operation = connector.begin_write_blocking(
        plan.descriptors, plan.metadata, timeout=timeout, parts=plan.parts
    )
    with operation:
        operation.wait_for_completion_blocking()

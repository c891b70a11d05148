"""Arrays that are offered: to be read by peers, or to be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nixl_connect.arrays.given import Arrays, Given, collected, is_sequence, regions
from nixl_connect.arrays.manifest import Entry, Message, structure
from nixl_connect.checks import instance
from nixl_connect.connector import Connector
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.operations.passive import PassiveOperation
from nixl_connect.status import OperationStatus

if TYPE_CHECKING:
    from typing_extensions import Self


class Offer:
    """Arrays that peers fetch or push. Made by `offer` and `expect`.

    Leaving ``with`` or ``async with`` closes it.
    """

    def __init__(self, operation: PassiveOperation, made: _Made) -> None:
        self._operation = operation
        self._made = made
        self._message: Message | None = None

    @property
    def operation(self) -> PassiveOperation:
        """The operation under it: one for all arrays."""
        return self._operation

    @property
    def arrays(self) -> Any:
        """The arrays by their names, or in their order: those offered, or those received."""
        return self._made.arrays()

    @property
    def status(self) -> OperationStatus:
        """State of the operation."""
        return self._operation.status

    @property
    def transfers_done(self) -> int:
        """How often the arrays have been fetched or pushed."""
        return self._operation.transfers_done

    @property
    def transfers_failed(self) -> int:
        """How often that failed, or was cancelled by the peer."""
        return self._operation.transfers_failed

    def message(self) -> str:
        """Return what peers need, as JSON text: the names, shapes, types and places of the arrays.

        Raises
        ------
        StateError
            The operation ended before.
        ClosedError
            The parent process made the offer.
        """
        return self._told().to_json()

    def message_bytes(self) -> bytes:
        """Return the same as bytes, in a compact form, for channels that do not need text."""
        return self._told().to_bytes()

    def _told(self) -> Message:
        metadata = self._operation.metadata()
        if self._message is None or self._message.metadata is not metadata:
            message = Message(metadata, self._made.entries, sequence=self._made.sequence)
            seal = self._operation.connection._engine.options.seal
            if seal is not None:
                message.sign(seal)
            self._message = message
        return self._message

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until all transfers are done.

        Parameters
        ----------
        timeout : float, optional
            Maximum seconds to wait; by default, until the offer ends.

        Raises
        ------
        WaitTimeoutError
            The timeout passed; the offer stands. Also a TimeoutError.
        OperationCancelledError, PeerLostError, TransferTimeoutError, TransferError
            As for `AbstractOperation.wait_for_completion`.
        """
        await self._operation.wait_for_completion(timeout)

    def wait_blocking(self, timeout: float | None = None) -> None:
        """Block until all transfers are done: the blocking form of `wait`."""
        self._operation.wait_for_completion_blocking(timeout)

    def keep(self, on_end: Callable[[Offer], object] | None = None) -> None:
        """Have the connector keep the offer until it ends, so that nobody has to.

        Parameters
        ----------
        on_end : callable, optional
            Called with the offer when it has ended; otherwise as for `PassiveOperation.keep`.
        """
        # What is not callable is for the operation to refuse.
        told = on_end if not callable(on_end) else lambda _: on_end(self)
        self._operation.keep(told)

    def close(self) -> None:
        """End the offer for whoever comes late. Does nothing if it has ended.

        One to many (`transfers`) is then complete; one to one that nobody has used is cancelled.
        The memory is kept for the connector's `quarantine`, if its message was handed out.
        """
        if self._operation._transfers == 1:
            self._operation.cancel()
        else:
            self._operation.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._operation.connection._engine.forked:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.__exit__()

    def __reduce__(self) -> Any:
        raise TypeError("an Offer cannot be copied or pickled; send its message()")

    def __repr__(self) -> str:
        return f"Offer({len(self._made.entries)} arrays, {self._operation!r})"


class _Made:
    """Arrays laid out, to be offered."""

    def __init__(self, connector: Any, arrays: Any, *, copy: bool, written: bool) -> None:
        instance("connector", connector, Connector)
        given: list[Given] = collected(arrays, copy=copy, specs=written)
        self.descriptors: list[Descriptor]
        self.entries: list[Entry]
        self.descriptors, self.entries = regions(given, written=written)
        self.sequence: bool = is_sequence(arrays)
        self._given = given

    def arrays(self) -> Any:
        """Return the arrays, structured as they were given."""
        return structure(self.entries, [it.array for it in self._given], sequence=self.sequence)


async def offer(
    connector: Connector,
    arrays: Arrays,
    *,
    timeout: float | None = None,
    transfers: int | None = 1,
    copy: bool = False,
) -> Offer:
    """Let peers fetch arrays.

    Parameters
    ----------
    connector : Connector
        Connector to use.
    arrays : mapping or sequence
        Arrays by name, where a value may be such a mapping again, or a list or tuple of arrays.
        Anything that `Descriptor` takes and that says its shape and type: arrays of NumPy, CuPy and
        JAX, tensors of torch, buffers. They are all in memory of one kind, and must not change
        until the offer has ended.
    timeout : float, optional
        Seconds after which the offer fails; by default the connector's `timeout`.
    transfers : int, optional
        How often they may be fetched; None for any number, until `Offer.close`.
    copy : bool
        Whether to copy arrays that are not contiguous, which are refused otherwise.

    Returns
    -------
    Offer
        Send its `message` to the peers, and `wait` for them.

    Raises
    ------
    ArgumentTypeError
        Something is no array that says its shape and type. Also a TypeError.
    ArgumentError
        There are none; one has Python objects, a mask, or is not contiguous; or `transfers` is less
        than 1. Also a ValueError.
    RegistrationError, CudaError, QuarantineError
        As for `Connector.create_readable`.
    """
    made = _Made(connector, arrays, copy=copy, written=False)
    operation = await connector.create_readable(
        made.descriptors, timeout=timeout, transfers=transfers
    )
    return Offer(operation, made)


def offer_blocking(
    connector: Connector,
    arrays: Arrays,
    *,
    timeout: float | None = None,
    transfers: int | None = 1,
    copy: bool = False,
) -> Offer:
    """Let peers fetch arrays: the blocking form of `offer`."""
    made = _Made(connector, arrays, copy=copy, written=False)
    operation = connector.create_readable_blocking(
        made.descriptors, timeout=timeout, transfers=transfers
    )
    return Offer(operation, made)


async def expect(
    connector: Connector,
    arrays: Arrays,
    *,
    timeout: float | None = None,
    transfers: int | None = 1,
) -> Offer:
    """Let peers push arrays.

    Parameters
    ----------
    connector : Connector
        Connector to use.
    arrays : mapping or sequence
        As for `offer`, but to be filled: none may be read-only, or overlap another (one may come
        twice). Instead of an array, ``(shape, type)`` has one made in host memory, in C order; the
        type is one of NumPy's or torch's, or a name, also as ml_dtypes and safetensors have it
        (``"bfloat16"``, ``"BF16"``).
    timeout : float, optional
        Seconds after which the offer fails; by default the connector's `timeout`.
    transfers : int, optional
        How many pushes complete it: each of all arrays, or of some (`push`'s `only`). None for any
        number, until `Offer.close`.

    Returns
    -------
    Offer
        Send its `message` to the peers, and `wait` for them; then its `arrays` have the data.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As for `offer`; or an array is read-only or overlaps another.
    RegistrationError, CudaError, QuarantineError
        As for `Connector.create_writable`.
    """
    made = _Made(connector, arrays, copy=False, written=True)
    operation = await connector.create_writable(
        made.descriptors, timeout=timeout, transfers=transfers
    )
    return Offer(operation, made)


def expect_blocking(
    connector: Connector,
    arrays: Arrays,
    *,
    timeout: float | None = None,
    transfers: int | None = 1,
) -> Offer:
    """Let peers push arrays: the blocking form of `expect`."""
    made = _Made(connector, arrays, copy=False, written=True)
    operation = connector.create_writable_blocking(
        made.descriptors, timeout=timeout, transfers=transfers
    )
    return Offer(operation, made)

"""One region of memory: where it is, what keeps it alive, and how peers are told of it."""

from __future__ import annotations

import os
import re
import threading
import weakref
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from nixl_connect._native import usual
from nixl_connect._native.span import Span
from nixl_connect.checks import instance, integer
from nixl_connect.errors import ArgumentError, MetadataError, RegistrationError
from nixl_connect.memory.buffers import Memory, locate, locate_remote
from nixl_connect.memory.data import Data, Stream
from nixl_connect.memory.device import HOST, Device
from nixl_connect.memory.registrar import AbstractConnection, AbstractConnector
from nixl_connect.model import Model

if TYPE_CHECKING:
    from nixl_connect._native.hold import Hold

U64: int = (1 << 64) - 1
_DEVICE = re.compile(r"cpu|(?:cuda|xpu)(?::[0-9]{1,5})?", re.ASCII)

# Guards which registration a descriptor has: several threads may register one.
_lock = threading.RLock()


class SerializedDescriptor(Model, frozen=True, kw_only=True):
    """One region of the passive side's memory.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda:<number>"`` or ``"xpu:<number>"``.
    ptr : int
        Address, not null.
    size : int
        Size in bytes.
    """

    device: str = "cpu"
    ptr: Annotated[int, Meta(gt=0)] = 0
    size: Annotated[int, Meta(ge=0)] = 0

    if TYPE_CHECKING:

        def __post_init__(self) -> None: ...
    else:
        __post_init__ = usual.region

    def _settle(self) -> None:
        """Put right what is not as nearly all are, or say what is wrong."""
        device, ptr, size = self.device, self.ptr, self.size
        if not isinstance(device, str):
            raise MetadataError(f"device must be a string, not {device!r}")
        if device != "cpu" and _DEVICE.fullmatch(device) is None:
            normal = device.strip().lower()
            if _DEVICE.fullmatch(normal) is None:
                raise MetadataError(
                    f"device must be 'cpu', 'cuda:<number>' or 'xpu:<number>', not {device!r}"
                )
            msgspec.structs.force_setattr(self, "device", normal)
        if type(ptr) is not int or type(size) is not int:
            raise MetadataError(f"ptr and size must be integers, not {ptr!r} and {size!r}")
        if ptr.bit_length() > 64 or size.bit_length() > 64:
            raise MetadataError("ptr and size must be of 64 bits")  # not to be printed
        if not 0 < ptr <= U64 or not 0 <= size <= U64 - ptr:
            raise MetadataError(
                f"size {size} from ptr {ptr:#x} is null or leaves the address space"
            )

    def to_descriptor(self) -> Descriptor:
        """Return a descriptor of the region. It names the peer's memory, not this process's."""
        return Descriptor._of_peer(self.ptr, self.size, self.device)

    @classmethod
    def _pydantic_fields(cls, core_schema: Any) -> dict[str, Any]:
        return {
            "device": core_schema.str_schema(),
            "ptr": core_schema.int_schema(gt=0),
            "size": core_schema.int_schema(ge=0),
        }


class Descriptor(Span):
    """A region of memory to transfer from or to.

    The memory stays alive, and a ``bytearray`` keeps its size, as long as the descriptor exists
    and, after that, until none of its operations can touch the memory any more.

    Parameters
    ----------
    data : object
        One of: a bytes-like object (``bytes``, ``bytearray``, ``memoryview``, ``array``, ``mmap``);
        a NumPy array; an object with ``__array_interface__``, ``__cuda_array_interface__`` or
        ``__dlpack__``, on the host or a CUDA device; a torch tensor; ``(array, device)``;
        ``(pointer, size)``, ``(pointer, size, device)`` or ``(pointer, size, device, owner)``, with
        the size in bytes. A pointer is an int or a cuda-python ``CUdeviceptr``; without `owner`,
        the caller must keep the memory alive. Arrays must be contiguous, in C or Fortran order.
    stream : object, optional
        The CUDA stream whose work on the memory each operation waits for: an object with
        ``__cuda_stream__``, or an integer handle. Work queued on the stream by the time an
        operation is created is finished before a byte moves. By default the stream that the object
        names, if any; -1 to wait for nothing.

    Raises
    ------
    ArgumentError
        The data is empty, null or not contiguous, or contradicts the device. Also a ValueError.
    ArgumentTypeError
        `data` is none of the above. Also a TypeError.
    LibraryError
        The data requires cuda-python, which is missing. Also an ImportError.

    Notes
    -----
    If cuda-python and a GPU are present, the driver is asked to confirm that memory given as a
    device's is on that device, over its whole length.
    """

    __slots__ = ()

    # Native, as is what takes an ordinary buffer.
    if TYPE_CHECKING:
        _address: int
        _whole: int
        _size: int
        _device: Device | None
        _readonly: bool
        _reference: Any
        _hold: Any
        _stream: int | None
        _bare: bool
        _row: tuple[int, int, int]
        _mem_type: int
        _metadata: SerializedDescriptor | None
        _registration: Hold | None
        _connection: AbstractConnection | None
        _last_used: weakref.ref[AbstractConnection] | None

        def __init__(self, data: Data, *, stream: Stream | None = None) -> None: ...

        def _take(
            self,
            address: int,
            size: int,
            device: Device | None,
            kind: int,
            number: int,
            *,
            readonly: bool,
            reference: Any,
            hold: Any,
            stream: int | None,
            bare: bool,
        ) -> None: ...

        def _cut(self, whole: Descriptor, offset: int, size: int) -> None: ...

    def _locate(self, data: Any, stream: Any) -> None:
        try:
            self._fill(locate(data, stream))
        finally:
            del data  # or who keeps an error keeps it, with this frame

    @classmethod
    def _of_peer(cls, pointer: int, size: int, device: str) -> Descriptor:
        """Return a descriptor of a peer's memory."""
        descriptor = cls.__new__(cls)
        descriptor._fill(locate_remote(pointer, size, device))
        return descriptor

    def _fill(self, memory: Memory) -> None:
        device = memory.device
        self._take(
            memory.pointer,
            memory.size,
            None if device == HOST else device,
            device.kind,
            device.id,
            readonly=memory.readonly,
            reference=memory.reference,
            hold=memory.hold,
            stream=memory.stream,
            bare=memory.bare,
        )

    @property
    def _memory(self) -> Memory:
        """All of the memory, however much of it is meant."""
        if not self._address:
            raise AttributeError("Descriptor.__init__ has not been called")
        return Memory(
            self._address,
            self._whole,
            self.device,
            self._readonly,
            self._reference,
            self._hold,
            self._stream,
            self._bare,
        )

    @property
    def ptr(self) -> int:
        """Address of the first byte."""
        return self._address

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._size

    @property
    def device(self) -> Device:
        """Where the memory is."""
        return HOST if self._device is None else self._device

    @property
    def is_readonly(self) -> bool:
        """Whether the memory is known to be read-only, so that it cannot receive data."""
        return self._readonly

    @property
    def is_registered(self) -> bool:
        """Whether NIXL holds a registration of this memory.

        Looks for this descriptor's own registration; if it has none, for one in the connection of
        the last operation that used it.
        """
        if self._registration is not None:
            connection = self._connection
        else:
            connection = self._last_used() if self._last_used is not None else None
        return connection is not None and connection._engine.registers(self._row, self._mem_type)

    @property
    def metadata(self) -> SerializedDescriptor:
        """The descriptor as it is sent to peers."""
        if self._metadata is None:
            device = "cpu" if self._device is None else str(self._device)
            self._metadata = SerializedDescriptor(device=device, ptr=self._address, size=self._size)
        return self._metadata

    def slice(self, offset: int, length: int) -> Descriptor:
        """Return a descriptor of a part of the memory, which shares this one's registration.

        The part keeps this descriptor alive, and with it the memory and its registration.

        Parameters
        ----------
        offset, length : int
            Start and length of the part, in bytes.

        Raises
        ------
        ArgumentError
            The part is empty or extends beyond the memory. Also a ValueError.
        ArgumentTypeError
            An argument is not an integer. Also a TypeError.
        """
        offset, length = integer("offset", offset), integer("length", length)
        if offset < 0 or not 0 < length <= self._size - offset:
            raise ArgumentError(
                f"{length} bytes from offset {offset} are not within the {self._size} of {self!r}"
            )
        part = Descriptor.__new__(type(self))
        part._cut(self, offset, length)
        connection = self._connection
        part._last_used = self._last_used if connection is None else weakref.ref(connection)
        return part

    @staticmethod
    def from_serialized(serialized: SerializedDescriptor) -> Descriptor:
        """Return a descriptor of the region that `serialized` names, which is its sender's memory.

        Raises
        ------
        ArgumentTypeError
            `serialized` is not a SerializedDescriptor.
        """
        instance("serialized", serialized, SerializedDescriptor)
        return serialized.to_descriptor()

    def register_with_connector(self, connection: AbstractConnection) -> None:
        """Register the memory for as long as the descriptor exists, or until it is deregistered.

        Operations register what they need and release it when they end. Memory that was already
        registered stays registered, so register buffers that are used repeatedly.

        Parameters
        ----------
        connection : Connection
            Connection to register with. Registering again does nothing.

        Raises
        ------
        RegistrationError
            The descriptor is registered with another connection, or NIXL refuses. Also a
            RuntimeError.
        ClosedError
            The connector is closed, or the parent process opened it. Also a RuntimeError.
        """
        instance("connection", connection, AbstractConnection)
        connection._engine.refuse_after_fork()
        if self._registered_with(connection):
            return
        registration = connection._engine.register(
            (self._address, self._whole, self.device.id), self._mem_type, self._hold
        )
        with _lock:
            if self._registration is None:
                self._connection = connection
                self._registration = registration
                return
        # Another thread was faster; with another connection, that is an error.
        registration.release()
        self._registered_with(connection)

    def _registered_with(self, connection: AbstractConnection) -> bool:
        """Whether registered with this connection; an error if with another that is open."""
        with _lock:
            if self._registration is None or self._connection is None:
                return False
            if self._connection._engine.closed or self._connection._engine.forked:
                self._registration = self._connection = None  # closing deregistered everything
                return False
            if self._connection is not connection:
                raise RegistrationError(
                    f"{self!r} is registered with connection {self._connection}, "
                    f"not with {connection}"
                )
            return True

    def deregister_with_connector(self, connection: AbstractConnection) -> None:
        """Undo `register_with_connector`. Does nothing if the descriptor is not registered.

        Raises
        ------
        RegistrationError
            The descriptor is registered with another connection.
        ClosedError
            The parent process opened the connector.
        """
        instance("connection", connection, AbstractConnection)
        connection._engine.refuse_after_fork()
        if not self._registered_with(connection):
            return
        with _lock:
            registration, self._registration, self._connection = self._registration, None, None
        if registration is not None:
            registration.release(patient=True)

    def register_memory(self, connector: AbstractConnector) -> None:
        """Register the memory with a connector's connection. The first use blocks to open it.

        Parameters
        ----------
        connector : Connector
            Connector to register with; otherwise as for `register_with_connector`.
        """
        instance("connector", connector, AbstractConnector)
        self.register_with_connector(connector._open())

    # Existing pools read and assign these two: they shrink a registered descriptor to the size of
    # one item and restore it later.

    @property
    def _data_size(self) -> int:
        return self._size

    @_data_size.setter
    def _data_size(self, size: int) -> None:
        size = integer("size", size)
        if not 0 < size <= self._whole:
            raise ArgumentError(
                f"size must be 1 to {self._whole}, the bytes of the memory, not {size}"
            )
        self._size = size

    @property
    def _data_ref(self) -> Any:
        return self._reference

    def __reduce__(self) -> Any:
        raise TypeError("a Descriptor cannot be copied or pickled; send its metadata")

    def __str__(self) -> str:
        return f"ptr={self.ptr:#x}, size={self._size}, device={self.device}"

    def __repr__(self) -> str:
        return f"Descriptor({self})"


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603, a thread that is not in the child may have held it
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)

"""Turns any object that holds bytes into where they are. The one place that knows protocols."""

from __future__ import annotations

from typing import Any, NamedTuple

from nixl_connect._native import buffer
from nixl_connect.device import HOST, Device
from nixl_connect.errors import ArgumentError, ArgumentTypeError

_ACCEPTED = (
    "a bytes-like object, a NumPy array, an object with __array_interface__, (array, device), "
    "(pointer, size), (pointer, size, device) or (pointer, size, device, owner)"
)
_ADDRESSES = 1 << 64


class Memory(NamedTuple):
    """A region of memory and what keeps it alive."""

    pointer: int
    size: int
    """In bytes."""

    device: Device
    readonly: bool
    reference: Any
    """The object that the caller gave, or its owner; None where there is none."""

    hold: Any
    """Keeps the memory alive and in place for as long as it is referenced."""


def locate(data: Any) -> Memory:
    """Return where the bytes of `data` are.

    Raises
    ------
    ArgumentError
        Not contiguous, of size zero, null, of Python objects, or the device contradicts the data.
    ArgumentTypeError
        No protocol that this function knows.
    """
    if data is None:
        raise ArgumentError(f"data must be {_ACCEPTED}, not None")
    memory = _locate_tuple(data) if isinstance(data, tuple) else _locate_object(data)
    if memory.pointer == 0:
        raise ArgumentError("data: null pointer")
    if memory.size <= 0:
        raise ArgumentError(f"data: size must be at least 1 byte, not {memory.size}")
    if memory.pointer + memory.size > _ADDRESSES:
        raise ArgumentError(
            f"data: {memory.size} bytes from {memory.pointer:#x} leave the address space"
        )
    return memory


def _locate_tuple(data: tuple[Any, ...]) -> Memory:
    if not 2 <= len(data) <= 4:
        raise ArgumentTypeError(f"data must be {_ACCEPTED}, not a tuple of {len(data)}")
    pointer, size = data[0], data[1]
    if len(data) == 2 and isinstance(size, (str, Device)):
        device = _device(size)
        memory = _locate_object(pointer)
        if device.kind is not memory.device.kind or device.id != memory.device.id:
            raise ArgumentError(
                f"data: the device is given as {device}, but the array is on {memory.device}"
            )
        return memory
    pointer, size = _integer("pointer", pointer), _integer("size", size)
    device = _device(data[2]) if len(data) > 2 else HOST
    owner = data[3] if len(data) > 3 else None
    return Memory(pointer, size, device, False, owner, owner)


def _integer(name: str, value: Any) -> int:
    kind = type(value)
    # cuda-python's CUdeviceptr has __int__ alone; what has __float__ too may be a fraction.
    exact = hasattr(kind, "__index__") or (
        hasattr(kind, "__int__") and not hasattr(kind, "__float__")
    )
    if not exact or isinstance(value, bool):
        raise ArgumentTypeError(f"data: the {name} must be an int, not {value!r}")
    number = int(value)
    if number < 0:
        raise ArgumentError(f"data: the {name} must not be negative, but is {number}")
    return number


def _device(value: Any) -> Device:
    if isinstance(value, Device):
        return value
    if isinstance(value, str):
        return Device(value)
    raise ArgumentTypeError(f"data: the device must be a Device or a str, not {value!r}")


def _locate_object(data: Any) -> Memory:
    try:
        view = memoryview(data)
    except (TypeError, ValueError, BufferError) as error:
        # Not a buffer, or (NumPy) one whose element type PEP 3118 cannot express.
        interface = getattr(data, "__array_interface__", None)
        if isinstance(interface, dict):
            return _locate_interface(data, interface)
        if isinstance(error, TypeError):
            raise ArgumentTypeError(
                f"data must be {_ACCEPTED}, not {type(data).__name__}"
            ) from None
        raise ArgumentError(
            f"data: {type(data).__name__} does not export its bytes: {error}"
        ) from None
    if "O" in view.format:
        raise ArgumentError("data: an array of Python objects cannot be transferred")
    pointer, size, readonly, dense = buffer.inspect(view)
    if not dense:
        raise ArgumentError(
            f"data: {type(data).__name__} of shape {view.shape} and strides {view.strides} is not "
            "contiguous; make a contiguous copy, and use that one"
        )
    return Memory(pointer, size, HOST, readonly, data, view)


def _locate_interface(data: Any, interface: dict[str, Any]) -> Memory:
    """Read version 3 of NumPy's array interface.

    Source: https://numpy.org/doc/stable/reference/arrays.interface.html
    """
    try:
        typestr = interface["typestr"]
        shape = tuple(interface["shape"])
        pointer, readonly = interface["data"]
        item = int(typestr[2:])
        size = item
        for extent in shape:
            size *= extent
        strides = interface.get("strides")
    except (KeyError, TypeError, ValueError) as error:
        raise ArgumentError(f"data: malformed __array_interface__: {error!r}") from None
    if typestr[1] == "O":
        raise ArgumentError("data: an array of Python objects cannot be transferred")
    if strides is not None and not _dense(shape, tuple(strides), item):
        raise ArgumentError(
            f"data: {type(data).__name__} of shape {shape} and strides {strides} is not contiguous"
        )
    return Memory(int(pointer), size, HOST, bool(readonly), data, (data, interface))


def _dense(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> bool:
    expected = item
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True

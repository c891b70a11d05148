"""Turns any object that holds bytes into where they are. The one place that knows protocols."""

from __future__ import annotations

import math
import re
from operator import index
from typing import Any, NamedTuple

from nixl_connect._native import buffer
from nixl_connect.device import HOST, Device
from nixl_connect.errors import ArgumentError, ArgumentTypeError

_ACCEPTED = (
    "a bytes-like object, a NumPy array, an object with __array_interface__, (array, device), "
    "(pointer, size), (pointer, size, device) or (pointer, size, device, owner)"
)
_NO_OBJECTS = "data: an array of Python objects cannot be transferred"
_ADDRESSES = 1 << 64
# A type string of NumPy: byte order, kind, bytes of an item (characters for U), unit of time.
_TYPE = re.compile(r"[<>|=]([biufcmMOSUV])([0-9]{1,18})(?:\[.*\])?")
# The names of fields in a format of PEP 3118.
_NAMES = re.compile(r":[^:]*:")


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
    try:
        if isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b":
            # A truth value: NumPy's too, which older NumPy takes for a number.
            raise TypeError
        if hasattr(kind, "__int__") and not hasattr(kind, "__index__"):
            # cuda-python's CUdeviceptr; but what has __float__ too may be a fraction.
            if hasattr(kind, "__float__"):
                raise TypeError
            number = int(value)
        else:
            number = index(value)
    except TypeError:
        raise ArgumentTypeError(f"data: the {name} must be an int, not {value!r}") from None
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
    if "O" in view.format and "O" in _NAMES.sub("", view.format):
        raise ArgumentError(_NO_OBJECTS)
    pointer, size, readonly, dense = buffer.inspect(view)
    if not dense:
        raise ArgumentError(
            f"data: {type(data).__name__} of shape {view.shape} and strides {view.strides} is not "
            "contiguous; make a contiguous copy, and use that one"
        )
    return Memory(pointer, size, HOST, readonly, data, view)


def _locate_interface(data: Any, interface: dict[str, Any]) -> Memory:
    """Read version 3 of NumPy's array interface, strictly: the fields come from anywhere.

    Source: https://numpy.org/doc/stable/reference/arrays.interface.html
    """
    try:
        item = _item_size(interface["typestr"], interface.get("descr"))
        shape = tuple(index(extent) for extent in interface["shape"])
        address, readonly = interface["data"]
        pointer = _integer("pointer", address)
        strides = interface.get("strides")
        if strides is not None:
            strides = tuple(index(stride) for stride in strides)
            if len(strides) != len(shape):
                raise ValueError(f"shape {shape}, but strides {strides}")
        if any(extent < 0 for extent in shape):
            raise ValueError(f"shape {shape}")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"data: malformed __array_interface__: {error}") from None
    size = math.prod(shape, start=item)
    if size and strides is not None and not _is_dense(shape, strides, item):
        raise ArgumentError(
            f"data: {type(data).__name__} of shape {shape} and strides {strides} is not contiguous"
        )
    return Memory(pointer, size, HOST, bool(readonly), data, (data, interface))


def _item_size(typestr: str, fields: Any) -> int:
    """Return the bytes of one item of a NumPy type, which may not be of Python objects."""
    match = _TYPE.fullmatch(typestr)
    if match is None:
        raise ValueError(f"typestr {typestr!r}")
    if match[1] == "O" or _has_objects(fields):
        raise ArgumentError(_NO_OBJECTS)
    return int(match[2]) * (4 if match[1] == "U" else 1)  # U counts characters


def _has_objects(fields: Any) -> bool:
    """Whether a description of fields, ``(name, type)`` or ``(name, type, shape)``, has objects."""
    if not isinstance(fields, (list, tuple)):
        return False
    for field in fields:
        kind = field[1]
        if kind[1:2] == "O" if isinstance(kind, str) else _has_objects(kind):
            return True
    return False


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> bool:
    """Whether the items follow each other without a gap, in C or Fortran order."""
    for step in (-1, 1):
        expected = item
        for extent, stride in zip(shape[::step], strides[::step], strict=True):
            if extent != 1 and stride != expected:
                break
            expected *= extent
        else:
            return True
    return False

"""Turns any object that holds bytes into where they are. The one place that knows protocols."""

from __future__ import annotations

import itertools
import math
import re
import sys
import traceback
from collections.abc import Sequence
from operator import index
from typing import Any, NamedTuple

from nixl_connect._native import buffer
from nixl_connect._native.dlpack import Tensor
from nixl_connect.errors import ArgumentError, ArgumentTypeError, NixlConnectError
from nixl_connect.memory import cuda
from nixl_connect.memory.device import HOST, Device, DeviceKind

_ACCEPTED = (
    "a bytes-like object, an object with __array_interface__, __cuda_array_interface__ or "
    "__dlpack__, (array, device), (pointer, size), (pointer, size, device) or "
    "(pointer, size, device, owner)"
)
_NO_MASK = "data: a masked array cannot be transferred: give its data and its mask as two arrays"
_NO_OBJECTS = "data: an array of Python objects cannot be transferred"
_ADDRESSES = 1 << 64
# A type string of NumPy: byte order, kind, bytes of an item (characters for U), unit of time.
_TYPE = re.compile(r"[<>|=]([biufcmMOSUV])([0-9]{1,18})(?:\[.*\])?")
# The names of fields in a format of PEP 3118.
_NAMES = re.compile(r":[^:]*:")
# DLPack's numbers of kinds of devices. Pinned memory is the host's, managed memory is a device's.
_DLPACK_HOST = frozenset({1, 3})
_DLPACK_CUDA = frozenset({2, 13})
_DLPACK_VERSION = (1, 1)
_MOST_DIMENSIONS = 65  # more than any array has


class _NoDataError(ArgumentTypeError, ArgumentError):
    """None in the place of data: a wrong type, as 3 is; to ``dynamo.nixl_connect`` a ValueError."""


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

    stream: int | None = None
    """CUDA's handle of the stream whose work on the memory has to be waited for."""

    bare: bool = False
    """Whether nobody vouches for it: all that is known is an address that the caller gave."""


def locate(data: Any, stream: Any = None) -> Memory:
    """Return where the bytes of `data` are.

    Parameters
    ----------
    data : object
        As for `Descriptor`.
    stream : object, optional
        As for `Descriptor`.

    Raises
    ------
    ArgumentError
        Not contiguous, of size zero, null, of Python objects, or the device contradicts the data.
    ArgumentTypeError
        No protocol that this function knows.
    LibraryError
        It takes cuda-python, and there is none.
    """
    outer = sys.exc_info()[1]
    try:
        return _located(data, stream)
    except NixlConnectError as error:
        # Their frames have what `data` exports: who keeps the error would keep that.
        cause: BaseException | None = error
        while cause is not None and cause is not outer:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__context__
        del data  # which may be an export itself, as a memoryview is
        raise


def _located(data: Any, stream: Any) -> Memory:
    if data is None:
        raise _NoDataError(f"data must be {_ACCEPTED}, not None")
    handle = None if stream is None else cuda.stream_handle(stream)
    memory = (
        _locate_tuple(data, handle) if isinstance(data, tuple) else _locate_object(data, handle)
    )
    _check_range(memory)
    if memory.device.kind is DeviceKind.HOST and handle is None:
        return memory
    return _checked(memory, handle)


def locate_remote(pointer: int, size: int, device: str) -> Memory:
    """Return a region of a peer's memory, about which this process knows nothing."""
    memory = Memory(pointer, size, Device(device), False, None, None)
    _check_range(memory)
    return memory


def _check_range(memory: Memory) -> None:
    if memory.size <= 0:
        raise ArgumentError(f"data: size must be at least 1 byte, not {memory.size}")
    if memory.pointer == 0:
        raise ArgumentError("data: null pointer")
    if memory.pointer + memory.size > _ADDRESSES:
        raise ArgumentError(
            f"data: {memory.size} bytes from {memory.pointer:#x} leave the address space"
        )


def _checked(memory: Memory, stream: int | None) -> Memory:
    """Return memory with the stream to wait for, once the driver knows both."""
    if stream is None:
        stream = memory.stream
    if stream == cuda.SYNCHRONISED:
        stream = None
    if stream is not None:
        if memory.device.kind is DeviceKind.XPU:
            raise ArgumentError(f"stream: {memory.device} has no CUDA streams")
        cuda.require("waiting for a stream")
    if memory.device.kind is DeviceKind.CUDA and cuda.is_available():
        cuda.check(memory.pointer, memory.size, memory.device.id)
    return memory._replace(stream=stream)


def _locate_tuple(data: tuple[Any, ...], stream: int | None) -> Memory:
    if not 2 <= len(data) <= 4:
        raise ArgumentTypeError(f"data must be {_ACCEPTED}, not a tuple of {len(data)}")
    pointer, size = data[0], data[1]
    if len(data) == 2 and isinstance(size, (str, Device)):
        device = _device(size)
        memory = _locate_object(pointer, stream, device)
        if device != memory.device:
            raise ArgumentError(
                f"data: the device is given as {device}, but the array is on {memory.device}"
            )
        return memory
    pointer, size = _integer("pointer", pointer), _integer("size", size)
    device = _device(data[2]) if len(data) > 2 else HOST
    owner = data[3] if len(data) > 3 else None
    return Memory(pointer, size, device, False, owner, owner, bare=True)


def _integer(name: str, value: Any) -> int:
    """Return an integer of less than 64 bits."""
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
        text = repr(value) if isinstance(value, (float, bool, str)) else f"a {kind.__name__}"
        raise ArgumentTypeError(f"data: the {name} must be an int, not {text:.80}") from None
    if number >= _ADDRESSES or number <= -_ADDRESSES:
        raise ArgumentError(f"data: the {name} leaves the address space of 64 bits")
    if number < 0:
        raise ArgumentError(f"data: the {name} must not be negative, but is {number}")
    return number


def _device(value: Any) -> Device:
    if isinstance(value, Device):
        return value
    if isinstance(value, str):
        try:
            return Device(value)
        except ArgumentError as error:
            raise ArgumentError(f"data: {error}") from None
    raise ArgumentTypeError(
        f"data: the device must be a Device or a str, not a {type(value).__name__}"
    )


def _locate_object(data: Any, stream: int | None, device: Device | None = None) -> Memory:
    # Another thread may be importing it.
    if isinstance(data, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ())):
        raise ArgumentError(_NO_MASK)
    try:
        view = memoryview(data)
    except (TypeError, ValueError, BufferError, NotImplementedError) as error:
        # Not a buffer, or one whose element type PEP 3118 cannot express.
        return _locate_otherwise(data, stream, device, error)
    try:
        form = view.format
        pointer, size, readonly, dense = buffer.inspect(view)
    except UnicodeDecodeError:
        raise ArgumentError("data: the buffer's format is no text") from None
    except ValueError as error:
        raise _refused(data, error) from None
    if "O" in form and "O" in _NAMES.sub("", form):
        raise ArgumentError(_NO_OBJECTS)
    if not dense:
        raise _sparse(data, view.shape, view.strides)
    return Memory(pointer, size, HOST, readonly, data, view)


def _locate_otherwise(
    data: Any, stream: int | None, device: Device | None, refusal: Exception
) -> Memory:
    """Locate what is no buffer of the host's, or cannot be had as one."""
    # Another thread may be importing it.
    if isinstance(data, getattr(sys.modules.get("torch"), "Tensor", ())):
        try:
            return _locate_torch(data, sys.modules["torch"])
        except NixlConnectError:
            raise
        except (RuntimeError, ValueError) as error:  # of torch: nested, or not initialised, say
            raise _refused(data, error) from None
    interface = getattr(data, "__array_interface__", None)
    if isinstance(interface, dict):
        return _read_interface(data, interface)
    interface = getattr(data, "__cuda_array_interface__", None)
    if isinstance(interface, dict):
        return _locate_cuda_interface(data, interface, device)
    if hasattr(type(data), "__dlpack__") and hasattr(type(data), "__dlpack_device__"):
        return _locate_dlpack(data, stream, refusal)
    if isinstance(refusal, TypeError):
        kind = type(data).__name__
        if isinstance(data, dict):
            kind += "; nixl_connect.arrays.offer takes dictionaries of arrays"
        raise ArgumentTypeError(f"data must be {_ACCEPTED}, not {kind}") from None
    raise _refused(data, refusal)


def _locate_torch(data: Any, torch: Any) -> Memory:
    """Ask a tensor itself: DLPack exports neither those with gradients nor all types of items.

    Its storage is held, too: a tensor that is given another lets go of it.
    """
    if data.device.type not in ("cpu", "cuda", "xpu"):
        raise ArgumentError(f"data: a torch tensor on {data.device} has no memory to transfer")
    if data.layout is not torch.strided or data.is_conj() or data.is_neg():
        raise ArgumentError(
            "data: a torch tensor must be strided, and neither conjugate nor negated"
        )
    item = data.element_size()
    shape = tuple(data.shape)
    strides = tuple(item * stride for stride in data.stride())
    if data.numel() and not order_of(shape, strides, item):
        raise _sparse(data, shape, strides)
    size = data.numel() * item
    storage = data.untyped_storage()
    if data.data_ptr() - storage.data_ptr() + size > storage.nbytes():
        raise ArgumentError(
            f"data: a torch tensor of {size} bytes, whose storage has {storage.nbytes()}"
        )
    stream = None
    if data.is_cuda:
        stream = torch.cuda.current_stream(data.device).cuda_stream
    device = Device(str(data.device))
    return Memory(data.data_ptr(), size, device, False, data, (data, storage), stream)


def _locate_cuda_interface(data: Any, interface: dict[str, Any], device: Device | None) -> Memory:
    """Read version 3 of the CUDA array interface, or 2, which knows no streams.

    Source: https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
    """
    if interface.get("mask") is not None:
        raise ArgumentError(_NO_MASK)
    memory = _read_interface(data, interface)
    stream = interface.get("stream")
    if stream is not None:
        stream = cuda.stream_handle(stream)
        if stream == 0:
            raise ArgumentError("data: malformed __cuda_array_interface__: stream 0 is ambiguous")
    if device is not None and device.kind is not DeviceKind.CUDA:
        raise ArgumentError(f"data: the device is given as {device}, but the array is on CUDA's")
    if device is None and memory.size:
        cuda.require("an array with __cuda_array_interface__, unless given as (array, device),")
        device = Device((DeviceKind.CUDA, cuda.device_of(memory.pointer)))
    return memory._replace(device=device or HOST, stream=stream)


def _locate_dlpack(data: Any, stream: int | None, refusal: Exception) -> Memory:
    """Read an export over DLPack, old or versioned. That of a device orders itself with `stream`.

    Source: https://dmlc.github.io/dlpack/latest/python_spec.html
    """
    name = type(data).__name__
    try:
        kind, number = data.__dlpack_device__()
        if kind in _DLPACK_HOST:
            device = HOST
        elif kind in _DLPACK_CUDA:
            if number < 0:
                raise ValueError(f"it is on device {number}")
            device = Device((DeviceKind.CUDA, index(number)))
            stream = cuda.LEGACY_STREAM if stream is None else stream
        else:
            raise ArgumentError(f"data: {name} is on a device of DLPack's kind {kind}")
        options = {} if device is HOST else {"stream": stream or cuda.LEGACY_STREAM}
        try:
            capsule = data.__dlpack__(max_version=_DLPACK_VERSION, copy=False, **options)
        except TypeError:  # from before DLPack 1.0
            capsule = data.__dlpack__(**options)
        tensor = Tensor(capsule)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise _refused(data, error, refusal) from None
    if tensor.is_copied:
        raise ArgumentError(f"data: {name} exports a copy of its bytes")
    if tensor.device[0] != kind or (device is not HOST and tensor.device[1] != device.id):
        raise ArgumentError(f"data: {name} says {(kind, number)}, but exports {tensor.device}")
    if not tensor.is_dense:
        raise _sparse(data, tensor.shape, tensor.strides)
    # Which its export does not say.
    immutable = isinstance(data, getattr(sys.modules.get("jax"), "Array", ()))
    return Memory(
        tensor.address,
        tensor.nbytes,
        device,
        tensor.is_readonly or immutable,
        data,
        (data, tensor),  # what exports another's memory may own that
        None if device is HOST else stream,
    )


def _refused(data: Any, error: Exception, first: Exception | None = None) -> ArgumentError:
    """Return the error for what an exporter refuses, or says wrongly."""
    reasons = str(error)
    if first is not None and not isinstance(first, TypeError):
        reasons += f"; {first}"
    return ArgumentError(f"data: {type(data).__name__} does not export its bytes: {reasons}")


def _sparse(data: Any, shape: Any, strides: Any) -> ArgumentError:
    return ArgumentError(
        f"data: {type(data).__name__} of shape {shape} and strides {strides} is not contiguous; "
        "make a contiguous copy, and use that one"
    )


def _read_interface(data: Any, interface: dict[str, Any]) -> Memory:
    """Read version 3 of NumPy's array interface, strictly: the fields come from anywhere.

    Source: https://numpy.org/doc/stable/reference/arrays.interface.html
    """
    try:
        item = _item_size(interface["typestr"], interface.get("descr"))
        shape = tuple(map(index, itertools.islice(interface["shape"], _MOST_DIMENSIONS)))
        address, readonly = interface["data"]
        pointer = _integer("pointer", address)
        strides = interface.get("strides")
        if strides is not None:
            strides = tuple(index(stride) for stride in strides)
            if len(strides) != len(shape):
                raise ValueError(f"shape {shape}, but strides {strides}")
        if len(shape) == _MOST_DIMENSIONS or any(extent < 0 for extent in shape):
            raise ValueError(f"shape {shape}")
        readonly = bool(readonly)
        size = math.prod(shape, start=item)
        if size >= _ADDRESSES:
            raise ValueError("the shape leaves 64 bits")
    except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"data: malformed array interface: {error}") from None
    if size and strides is not None and not order_of(shape, strides, item):
        raise _sparse(data, shape, strides)
    return Memory(pointer, size, HOST, readonly, data, (data, interface), bare=True)


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


def order_of(shape: Sequence[int], strides: Sequence[int], item: int) -> str:
    """Return C or F if items follow each other without a gap in that order, else nothing.

    C where both are so. Strides and `item` are in bytes.
    """
    for order, step in (("C", -1), ("F", 1)):
        expected = item
        for extent, stride in zip(shape[::step], strides[::step], strict=True):
            if extent != 1 and stride != expected:
                break
            expected *= extent
        else:
            return order
    return ""

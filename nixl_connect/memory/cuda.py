"""The only module that imports cuda-python, when it is first needed.

The context that is current on the caller's thread stays so: where the driver needs another, that is
pushed and popped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from nixl_connect.errors import (
    ArgumentError,
    ArgumentTypeError,
    CudaError,
    LibraryError,
    TransferTimeoutError,
)
from nixl_connect.memory.device import Device, DeviceKind
from nixl_connect.permit import Permit

LEGACY_STREAM = 1
"""CUDA's handle of the default stream that orders with all others of its context."""

SYNCHRONISED = -1
"""In place of a stream: the caller has waited for it."""

_NO_TIMING = 2
_PORTABLE = 1
# Handles that name a stream of whatever context is current.
_OWN_STREAM = 2  # of the calling thread
_DEFAULT_STREAMS = frozenset({0, LEGACY_STREAM, _OWN_STREAM})
# What a call gets while another thread captures a graph, whatever it asks.
_CAPTURES = range(900, 911)
# Seconds between looks at a stream, at least and at most, and how they grow.
_SHORTEST_NAP, _LONGEST_NAP, _GROWTH = 20e-6, 1e-3, 0.05
_INSTALL = (
    "install cuda-python, as with: pip install 'nixl-connect[cuda13]', or [cuda12] for CUDA 12"
)


@functools.cache
def _driver() -> Any:
    """Return cuda-python's binding of the driver, initialised; None where there is none."""
    try:
        from cuda.bindings import driver
    except ImportError:
        return None
    try:
        (result,) = driver.cuInit(0)
        if result != driver.CUresult.CUDA_SUCCESS:
            return None
        result, count = driver.cuDeviceGetCount()
    except RuntimeError:  # cuda-python without libcuda.so
        return None
    return driver if result == driver.CUresult.CUDA_SUCCESS and count > 0 else None


def is_available() -> bool:
    """Whether cuda-python is installed and its driver finds a GPU.

    Notes
    -----
    Initialises the driver, which a process must not have done before it forks: ask in the child.
    """
    return _driver() is not None


def require(purpose: str) -> Any:
    """Return the driver.

    Raises
    ------
    LibraryError
        There is none. An ImportError.
    """
    driver = _driver()
    if driver is None:
        raise LibraryError(f"{purpose} takes cuda-python and a GPU; {_INSTALL}")
    return driver


def _call(name: str, *arguments: Any) -> Any:
    """Call the driver, and return what it returns beside its result."""
    driver = require(name)
    result, *values = getattr(driver, name)(*arguments)
    if result != driver.CUresult.CUDA_SUCCESS:
        raise CudaError(f"{name}: {result.name}")
    return values[0] if values else None


# --- pointers -------------------------------------------------------------------------------------


def device_of(pointer: int) -> int:
    """Return the number of the device that a pointer belongs to.

    Raises
    ------
    ArgumentError
        It is not a pointer to memory that the driver knows.
    """
    kind = _attribute("MEMORY_TYPE", pointer)
    if kind is None:
        raise ArgumentError(f"data: {pointer:#x} is not memory of a CUDA device")
    return int(_attribute("DEVICE_ORDINAL", pointer))


def check(pointer: int, size: int, number: int) -> None:
    """Raise ArgumentError unless `size` bytes from a pointer are memory of device `number`.

    An allocation may consist of several that are mapped side by side.
    """
    driver = require("to check a device pointer")
    end = pointer + size
    at = pointer
    while at < end:
        kind = _attribute("MEMORY_TYPE", at)
        if kind is None and at == pointer:
            raise ArgumentError(f"data: {pointer:#x} is not memory of a CUDA device")
        if kind is None:
            raise ArgumentError(
                f"data: {size} bytes from {pointer:#x} leave their allocation, which ends after "
                f"{at - pointer}"
            )
        managed = bool(_attribute("IS_MANAGED", at))
        if int(kind) != int(driver.CUmemorytype.CU_MEMORYTYPE_DEVICE) and not managed:
            raise ArgumentError(f"data: {at:#x} is memory of the host, not of cuda:{number}")
        actual = int(_attribute("DEVICE_ORDINAL", at))
        if actual != number and not managed:
            raise ArgumentError(f"data: {at:#x} is memory of cuda:{actual}, not of cuda:{number}")
        start, length = _attribute("RANGE_START_ADDR", at), _attribute("RANGE_SIZE", at)
        if start is None or length is None or int(start) + int(length) <= at:
            raise CudaError(f"the driver does not tell how large the allocation at {at:#x} is")
        at = int(start) + int(length)


def _attribute(name: str, pointer: int) -> Any:
    """Return an attribute of a pointer; None for one that the driver does not know."""
    driver = require("to look at a device pointer")
    attribute = getattr(driver.CUpointer_attribute, f"CU_POINTER_ATTRIBUTE_{name}")
    result, value = driver.cuPointerGetAttribute(attribute, pointer)
    return value if result == driver.CUresult.CUDA_SUCCESS else None


class Pinned:
    """Memory of the host that CUDA knows as pinned, for as long as this lives.

    Parameters
    ----------
    pointer, size : int
        Whole pages, and how many bytes.
    memory : object
        What keeps them mapped.

    Raises
    ------
    CudaError
        The driver refuses.
    """

    def __init__(self, pointer: int, size: int, memory: Any) -> None:
        self._pointer: int | None = None
        self._process = os.getpid()
        self._memory = memory
        self._context = _primary_context(0)
        with _current(self._context):
            _call("cuMemHostRegister", pointer, size, _PORTABLE)
        self._pointer = pointer

    def __del__(self) -> None:
        # A forked child has pinned nothing, and has no driver to speak to.
        if self._pointer is not None and self._process == os.getpid():
            with contextlib.suppress(Exception), _current(self._context):
                _call("cuMemHostUnregister", self._pointer)


# --- streams --------------------------------------------------------------------------------------


def stream_handle(stream: Any) -> int:
    """Return the handle of a stream: of ``__cuda_stream__``, or an integer.

    Raises
    ------
    ArgumentTypeError
        Neither.
    """
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        try:
            version, handle = protocol() if callable(protocol) else protocol
        except (TypeError, ValueError):
            raise ArgumentTypeError(f"stream: malformed __cuda_stream__ of {stream!r}") from None
        if version != 0:
            raise ArgumentError(f"stream: version {version} of __cuda_stream__, not 0")
        stream = handle
    if isinstance(stream, bool) or not (hasattr(stream, "__index__") or hasattr(stream, "__int__")):
        raise ArgumentTypeError(
            "stream must have __cuda_stream__ or be an integer handle, or -1 where nothing is to "
            f"be waited for; not {stream!r}"
        )
    if isinstance(stream, float):
        raise ArgumentTypeError(f"stream must be an integer handle, not {stream!r}")
    number = int(stream)
    if not SYNCHRONISED <= number < 1 << 64:
        raise ArgumentError("stream: no handle is below -1 or leaves 64 bits")
    return number


class Fence:
    """What some streams had been given to do when this was made.

    For one thread at a time.

    Parameters
    ----------
    streams : iterable of (Device, int)
        Where the memory is, and the stream's handle. Handle 2 is a stream of the calling thread.

    Raises
    ------
    CudaError
        The driver refuses: a stream that has been destroyed, say.
    """

    def __init__(self, streams: Iterable[tuple[Device, int]]) -> None:
        ordered = sorted(streams, key=str)
        self.name: str = f"streams {ordered}"
        """The same for the same streams, which finish in order."""
        self._events: list[tuple[Any, Any]] = []  # with the context of each
        for device, stream in ordered:
            context = _context(device, stream)
            with _current(context):
                if int(_call("cuStreamIsCapturing", stream)):
                    raise CudaError("the stream is being captured in a graph: no end to wait for")
                self._events.append((context, _call("cuEventCreate", _NO_TIMING)))
                _call("cuEventRecord", self._events[-1][1], stream)

    def is_passed(self) -> bool:
        """Whether all of it is done.

        Raises
        ------
        CudaError
            It failed.
        """
        driver = require("waiting for a stream")
        while self._events:
            context, event = self._events[-1]
            with _current(context):
                (result,) = driver.cuEventQuery(event)
                if result == driver.CUresult.CUDA_ERROR_NOT_READY or int(result) in _CAPTURES:
                    return False
                if result != driver.CUresult.CUDA_SUCCESS:
                    raise CudaError(f"the work on a descriptor's stream failed: {result.name}")
                self._events.pop()
                _call("cuEventDestroy", event)
        return True

    def wait(self, permit: Permit) -> None:
        """Wait until it is done, as far as the permit allows.

        Raises
        ------
        CudaError
            It failed.
        TransferTimeoutError
            It is not done in time.
        """
        began = time.monotonic()
        while not self.is_passed():
            permit.need_patience()
            permit.check()
            now = time.monotonic()
            if now > permit.end:
                raise TransferTimeoutError(
                    f"the work on the descriptors' streams was not done within {now - began:.3g} s"
                )
            time.sleep(min(max((now - began) * _GROWTH, _SHORTEST_NAP), _LONGEST_NAP))

    def __del__(self) -> None:
        # Where nobody waited to the end. The driver frees an event once it has passed.
        with contextlib.suppress(Exception):
            while self._events:
                context, event = self._events.pop()
                with _current(context):
                    _call("cuEventDestroy", event)


def copy(target: int, source: int, size: int, number: int, held: Any) -> None:
    """Copy bytes between the host and a device, and wait. After no stream's work but the thread's.

    Parameters
    ----------
    target, source : int
        Pointers, of the host or of the device.
    size : int
        Bytes.
    number : int
        The device.
    held : object
        What keeps both sides alive. It is held until the driver says that the copy is over; for
        good where it does not, or where an exception of a signal handler comes in between: a leak
        rather than a copy into memory of others.

    Raises
    ------
    CudaError
        The driver refuses, or the copy failed.
    """
    with _current(_primary_context(number)):
        _copying[id(held)] = held
        try:
            _call("cuMemcpyAsync", target, source, size, _OWN_STREAM)
        except CudaError:
            del _copying[id(held)]
            raise
        _call("cuStreamSynchronize", _OWN_STREAM)
        del _copying[id(held)]


_copying: dict[int, Any] = {}


def _context(device: Device, stream: int) -> Any:
    """Return the context that a stream belongs to: for a default stream, the device's."""
    if stream not in _DEFAULT_STREAMS:
        return _call("cuStreamGetCtx", stream)
    current = _call("cuCtxGetCurrent")
    if int(current) and (device.kind is DeviceKind.HOST or _call("cuCtxGetDevice") == device.id):
        return current
    return _primary_context(device.id)


@functools.cache
def _primary_context(device: int) -> Any:
    """Return the context that the runtime uses for a device, which stays for good."""
    return _call("cuDevicePrimaryCtxRetain", _call("cuDeviceGet", device))


@contextlib.contextmanager
def _current(context: Any) -> Iterator[None]:
    """Make a context the current one of this thread meanwhile.

    Also, whatever another thread captures in a graph meanwhile is none of this one's, whose calls
    would break the capture.
    """
    _call("cuCtxPushCurrent", context)
    try:
        mode = _call("cuThreadExchangeStreamCaptureMode", _relaxed())
        try:
            yield
        finally:
            _call("cuThreadExchangeStreamCaptureMode", mode)
    finally:
        _call("cuCtxPopCurrent")


def _relaxed() -> Any:
    return require("a stream").CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED

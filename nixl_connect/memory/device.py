"""Where memory is: kinds of device and their numbers."""

from __future__ import annotations

import re
from enum import IntEnum

from nixl_connect.errors import ArgumentError, ArgumentTypeError


class DeviceKind(IntEnum):
    """Kind of memory."""

    UNSPECIFIED = 0

    HOST = 1
    """System memory."""

    CUDA = 2
    """Memory of an NVIDIA GPU."""

    XPU = 3
    """Memory of an Intel GPU."""

    def __str__(self) -> str:
        return _NAMES[self]

    @property
    def nixl_mem_type(self) -> str:
        """Name of NIXL's memory segment: ``"DRAM"`` or ``"VRAM"``.

        Raises
        ------
        ArgumentError
            The kind is UNSPECIFIED, which has none.
        """
        if self is DeviceKind.UNSPECIFIED:
            raise ArgumentError("DeviceKind.UNSPECIFIED has no NIXL memory type")
        return "DRAM" if self is DeviceKind.HOST else "VRAM"


_NAMES = ("<invalid>", "cpu", "cuda", "xpu")
_KINDS = {
    "cpu": DeviceKind.HOST,
    "host": DeviceKind.HOST,
    "cuda": DeviceKind.CUDA,
    "gpu": DeviceKind.CUDA,
    "xpu": DeviceKind.XPU,
}
_LAST = 99_999
_PATTERN = re.compile(r"([a-z]+)(?::([0-9]{1,5}))?", re.ASCII)

# NIXL's numbers of the two memory types that this package uses.
_DRAM, _VRAM = 0, 1


class Device:
    """One device of the system.

    Parameters
    ----------
    metadata : str or (DeviceKind, int)
        ``"cpu"`` or ``"host"``; ``"cuda"``, ``"gpu"`` or ``"xpu"``, followed by a colon and the
        number unless that is 0; or the kind and the number. Case and surrounding whitespace do not
        matter.

    Raises
    ------
    ArgumentError
        The text names no device, or the number is negative or above 99,999.
    ArgumentTypeError
        `metadata` is neither a string nor such a pair.
    """

    __slots__ = ("_id", "_kind")

    def __init__(self, metadata: str | tuple[DeviceKind, int]) -> None:
        if isinstance(metadata, str):
            self._kind, self._id = _parse(metadata)
        elif (
            isinstance(metadata, tuple)
            and len(metadata) == 2
            and isinstance(metadata[0], DeviceKind)
            and isinstance(metadata[1], int)
            and not isinstance(metadata[1], bool)
        ):
            self._kind, number = metadata
            if not 0 <= number <= _LAST:
                raise ArgumentError(f"metadata: device number {number} is not 0 to {_LAST}")
            if self._kind is DeviceKind.UNSPECIFIED:
                raise ArgumentError("metadata: DeviceKind.UNSPECIFIED is no device")
            self._id = 0 if self._kind is DeviceKind.HOST else number
        elif metadata is None:
            raise ArgumentError("metadata must be a string or (DeviceKind, int), not None")
        else:
            raise ArgumentTypeError(
                f"metadata must be a string or (DeviceKind, int), not {metadata!r:.80}"
            )

    @property
    def kind(self) -> DeviceKind:
        """Kind of the device's memory."""
        return self._kind

    @property
    def id(self) -> int:
        """Number of the device among those of its kind; 0 for the host."""
        return self._id

    @property
    def mem_type(self) -> int:
        """NIXL's number for the device's memory type."""
        return _DRAM if self._kind is DeviceKind.HOST else _VRAM

    def __str__(self) -> str:
        return str(self._kind) if self._kind is DeviceKind.HOST else f"{self._kind}:{self._id}"

    def __repr__(self) -> str:
        return f"Device({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Device):
            return NotImplemented
        return self._kind is other._kind and self._id == other._id

    def __hash__(self) -> int:
        return hash((self._kind, self._id))

    def __reduce__(self) -> tuple[type[Device], tuple[tuple[DeviceKind, int]]]:
        return Device, ((self._kind, self._id),)


def _parse(text: str) -> tuple[DeviceKind, int]:
    match = _PATTERN.fullmatch(text.strip().lower())
    kind = _KINDS.get(match[1]) if match else None
    if match is None or kind is None:
        raise ArgumentError(
            f"the device must be 'cpu', 'cuda:<number>' or 'xpu:<number>', not {text!r:.80}"
        )
    if kind is DeviceKind.HOST and int(match[2] or 0):
        raise ArgumentError(f"the host has no number, but {text!r:.80} has")
    return kind, int(match[2] or 0)


HOST = Device("cpu")

"""One region of memory, as peers are told of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from nixl_connect._native import usual
from nixl_connect.errors import MetadataError
from nixl_connect.model import Model

if TYPE_CHECKING:
    from nixl_connect.descriptor import Descriptor

U64: int = (1 << 64) - 1
_DEVICE = re.compile(r"cpu|(?:cuda|xpu)(?::[0-9]{1,5})?", re.ASCII)


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
        from nixl_connect.descriptor import Descriptor

        return Descriptor._of_peer(self.ptr, self.size, self.device)

    @classmethod
    def _pydantic_fields(cls, core_schema: Any) -> dict[str, Any]:
        return {
            "device": core_schema.str_schema(),
            "ptr": core_schema.int_schema(gt=0),
            "size": core_schema.int_schema(ge=0),
        }

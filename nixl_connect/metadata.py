"""The wire format: what the passive side hands out and the active side needs.

JSON with four fields, the same as that of ``dynamo.nixl_connect``, and also a compact binary form.
Nothing here touches NIXL or a pointer: this module only decides whether a message is well-formed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, overload

import msgspec
from msgspec import Meta

from nixl_connect._native.packing import Regions
from nixl_connect.codec import stream_of, text_of
from nixl_connect.errors import ArgumentTypeError, MetadataError
from nixl_connect.model import Model

if TYPE_CHECKING:
    from nixl_connect.descriptor import Descriptor

_DEVICE = re.compile(r"cpu|(?:cuda|xpu)(?::[0-9]{1,5})?", re.ASCII)
_U64 = (1 << 64) - 1
# Versions of the binary form: each descriptor by itself, or groups of blocks.
_SINGLE, _GROUPED = 1, 2


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

    def __post_init__(self) -> None:
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
        if not 0 < ptr <= _U64 or not 0 <= size <= _U64 - ptr:
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


class Group(NamedTuple):
    """Blocks of one region; the one with index i starts ``i * stride`` bytes from `ptr`."""

    device: str
    ptr: int
    size: int
    """Size of each block, in bytes."""

    stride: int
    width: int
    """Bytes per index: 4 or 8."""

    indices: bytes
    """Little-endian."""


class BlockDescriptors(Sequence[SerializedDescriptor]):
    """The descriptors of blocks, each created on access. Immutable.

    Parameters
    ----------
    groups : list of Group
        The blocks.
    tables : list of Regions, optional
        Their rows, if known.

    Raises
    ------
    MetadataError
        A device, an address or a size is invalid.
    """

    __slots__ = ("groups", "tables")

    def __init__(self, groups: Sequence[Group], tables: list[Regions] | None = None) -> None:
        self.groups: tuple[Group, ...] = tuple(groups)
        self.tables: list[Regions] = (
            [_table_of(group) for group in self.groups] if tables is None else tables
        )
        """The rows of each group."""

    @property
    def regions(self) -> Regions:
        """All rows."""
        return Regions.join(self.tables)

    def listed(self) -> bytes:
        """Return ``;<device>,<ptr>,<size>`` for each row."""
        pairs = zip(self.groups, self.tables, strict=True)
        return b"".join(table.listed(group.device.encode()) for group, table in pairs)

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    @overload
    def __getitem__(self, i: int) -> SerializedDescriptor: ...

    @overload
    def __getitem__(self, i: slice) -> list[SerializedDescriptor]: ...

    def __getitem__(self, i: int | slice) -> SerializedDescriptor | list[SerializedDescriptor]:
        if isinstance(i, slice):
            return [self[each] for each in range(*i.indices(len(self)))]
        if i < 0:
            i += len(self)
        for group, table in zip(self.groups, self.tables, strict=True):
            if 0 <= i < len(table):
                ptr, size, _ = table[i]
                return SerializedDescriptor(device=group.device, ptr=ptr, size=size)
            i -= len(table)
        raise IndexError("descriptor index out of range")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BlockDescriptors) and self.groups == other.groups:
            return True
        if not isinstance(other, (BlockDescriptors, list)):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[BlockDescriptors], tuple[tuple[Group, ...]]]:
        return BlockDescriptors, (self.groups,)

    def __repr__(self) -> str:
        return f"BlockDescriptors({len(self)} blocks in {len(self.groups)} groups)"


if TYPE_CHECKING:
    _Described = list[SerializedDescriptor] | BlockDescriptors
else:  # what msgspec reads
    _Described = list[SerializedDescriptor]


def _table_of(group: Group) -> Regions:
    """Return the rows of a group that may come from anywhere."""
    first = SerializedDescriptor(device=group.device, ptr=group.ptr, size=group.size)
    if first.device != group.device:
        raise MetadataError(f"device must be in lower case, not {group.device!r}")
    if group.width not in (4, 8) or len(group.indices) % group.width or group.stride < 1:
        raise MetadataError(
            f"blocks with a stride of {group.stride} and {len(group.indices)} bytes of indices, "
            f"{group.width} each"
        )
    room = _U64 - group.ptr - group.size
    number = int(group.device.partition(":")[2] or 0)
    indices = memoryview(group.indices).cast("I" if group.width == 4 else "Q")
    try:
        return Regions.of_blocks(
            group.ptr, group.stride, group.size, number, room // group.stride + 1, indices
        )
    except (ValueError, OverflowError) as error:
        raise MetadataError(f"blocks: {error}") from None


class RdmaMetadata(Model, frozen=True, kw_only=True):
    """What an active operation needs to reach the memory of a passive one.

    Parameters
    ----------
    descriptors : list of SerializedDescriptor
        The regions, in the order of the operation's descriptors. For blocks, a sequence that
        creates each one on access.
    nixl_metadata : str
        NIXL's own metadata of the regions: ``b64:`` and the base64 of a zlib stream, or (older
        peers) the stream in hexadecimal.
    notification_key : str
        Key with which the active side notifies the passive side.
    operation_kind : int
        1 for memory to be read, 2 for memory to be written.
    """

    descriptors: _Described = msgspec.field(default_factory=list)
    nixl_metadata: str = ""
    notification_key: str = ""
    operation_kind: int = 0

    def __post_init__(self) -> None:
        descriptors = self.descriptors
        if not isinstance(descriptors, (list, BlockDescriptors)):
            raise MetadataError(f"descriptors must be a list, not {type(descriptors).__name__}")
        for item in () if isinstance(descriptors, BlockDescriptors) else descriptors:
            if type(item) is not SerializedDescriptor:
                msgspec.structs.force_setattr(
                    self,
                    "descriptors",
                    [SerializedDescriptor.model_validate(each) for each in descriptors],
                )
                break
        if not isinstance(self.nixl_metadata, str) or not isinstance(self.notification_key, str):
            raise MetadataError("nixl_metadata and notification_key must be strings")
        kind = self.operation_kind
        if not isinstance(kind, int) or isinstance(kind, bool) or not 0 <= kind <= 2:
            raise MetadataError(f"operation_kind must be 1 (read) or 2 (write), not {kind!r}")
        if type(kind) is not int:
            msgspec.structs.force_setattr(self, "operation_kind", int(kind))

    def to_descriptors(self) -> Descriptor | list[Descriptor]:
        """Return the regions: a Descriptor if there is one, a list if there are more.

        Raises
        ------
        MetadataError
            There are no regions.
        """
        if not self.descriptors:
            raise MetadataError("descriptors must not be empty")
        described = [item.to_descriptor() for item in self.descriptors]
        return described[0] if len(described) == 1 else described

    def to_bytes(self) -> bytes:
        """Return the compact binary form: a msgpack array, for channels that do not need JSON."""
        stream = stream_of(self.nixl_metadata)
        described = self.descriptors
        rows: Sequence[Any]
        if isinstance(described, BlockDescriptors):
            version, rows = _GROUPED, described.groups
        else:
            version, rows = _SINGLE, [(item.device, item.ptr, item.size) for item in described]
        return _packer.encode((version, self.operation_kind, self.notification_key, stream, rows))

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> RdmaMetadata:
        """Create an instance from its binary form.

        Raises
        ------
        MetadataError
            The data is malformed, or of a version that this release does not read.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ArgumentTypeError(f"data must be bytes, not {type(data).__name__}")
        try:
            version, kind, key, stream, packed = _unpacker.decode(data)
            if version not in (_SINGLE, _GROUPED):
                raise MetadataError(f"RdmaMetadata: binary version {version}, not 1 or 2")
            described: _Described
            if version == _GROUPED:
                described = BlockDescriptors(_groups.decode(packed))
            else:
                described = [
                    SerializedDescriptor(device=device, ptr=ptr, size=size)
                    for device, ptr, size in _rows.decode(packed)
                ]
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise MetadataError(f"RdmaMetadata: {error}") from None
        return cls(
            descriptors=described,
            nixl_metadata=text_of(stream),
            notification_key=key,
            operation_kind=kind,
        )

    @classmethod
    def _pydantic_fields(cls, core_schema: Any) -> dict[str, Any]:
        item = core_schema.union_schema(
            [
                core_schema.is_instance_schema(SerializedDescriptor),
                core_schema.typed_dict_schema(
                    {
                        name: core_schema.typed_dict_field(schema, required=False)
                        for name, schema in SerializedDescriptor._pydantic_fields(
                            core_schema
                        ).items()
                    },
                    extra_behavior="forbid",
                ),
            ],
            mode="left_to_right",
        )
        return {
            "descriptors": core_schema.list_schema(item),
            "nixl_metadata": core_schema.str_schema(),
            "notification_key": core_schema.str_schema(),
            "operation_kind": core_schema.int_schema(ge=0, le=2),
        }


_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(tuple[int, int, str, bytes, msgspec.Raw])
_rows = msgspec.msgpack.Decoder(list[tuple[str, int, int]])
_groups = msgspec.msgpack.Decoder(list[Group])

"""Many descriptors as rows, without a Python object for each."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, overload

from nixl_connect._native import rows
from nixl_connect._native.packing import Regions
from nixl_connect.errors import MetadataError
from nixl_connect.memory.descriptor import U64, SerializedDescriptor
from nixl_connect.model import Foreign

FEW = 64
"""Up to so many descriptors are a list."""


class DeviceRows(NamedTuple):
    """Rows of one kind of device."""

    device: str
    """Its name; or the kind and a colon, which the number of each row follows."""

    rows: Regions

    def name(self, number: int) -> str:
        """Return the name of the device with a number."""
        return f"{self.device}{number}" if self.device[-1] == ":" else self.device


class DescriptorTable(Sequence[SerializedDescriptor], Foreign):
    """Many descriptors, each created on access. Immutable."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[DeviceRows]) -> None:
        self.parts: tuple[DeviceRows, ...] = tuple(parts)

    @property
    def regions(self) -> Regions:
        """All rows."""
        return Regions.join([part.rows for part in self.parts])

    @property
    def devices(self) -> list[str]:
        """The first device of each part, whose others are of its kind."""
        return [part.name(part.rows[0][2]) for part in self.parts]

    def listed(self) -> bytes:
        """Return ``;<device>,<ptr>,<size>`` for each row."""
        return b"".join(rows.listed(part.rows, part.device.encode()) for part in self.parts)

    def plain(self) -> list[dict[str, str | int]]:
        """Return a dict of each row."""
        found: list[dict[str, str | int]] = []
        for part in self.parts:
            found += rows.plain(part.rows, part.device.encode())
        return found

    def json(self) -> bytes:
        """Return the JSON of the rows."""
        items = (rows.json_of(part.rows, part.device.encode()) for part in self.parts)
        return b"[%b]" % b",".join(items)

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    @overload
    def __getitem__(self, i: int) -> SerializedDescriptor: ...

    @overload
    def __getitem__(self, i: slice) -> list[SerializedDescriptor]: ...

    def __getitem__(self, i: int | slice) -> SerializedDescriptor | list[SerializedDescriptor]:
        if isinstance(i, slice):
            return [self[each] for each in range(*i.indices(len(self)))]
        if i < 0:
            i += len(self)
        for part in self.parts:
            if 0 <= i < len(part.rows):
                ptr, size, number = part.rows[i]
                return SerializedDescriptor(device=part.name(number), ptr=ptr, size=size)
            i -= len(part.rows)
        raise IndexError("descriptor index out of range")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (DescriptorTable, list)):
            return NotImplemented
        if isinstance(other, DescriptorTable) and self._has_parts_of(other):
            return True
        return len(self) == len(other) and all(map(operator.eq, self, other))

    def _has_parts_of(self, other: DescriptorTable) -> bool:
        """Whether the rows are the same and divided in the same way."""
        return len(self.parts) == len(other.parts) and all(
            one.device == two.device and rows.same(one.rows, two.rows)
            for one, two in zip(self.parts, other.parts, strict=True)
        )

    __hash__: ClassVar[None] = None  # type: ignore[assignment]


class RowDescriptors(DescriptorTable):
    """The descriptors of many regions of one kind of memory.

    Parameters
    ----------
    device : str
        ``"cpu"``, or ``"cuda:"`` or ``"xpu:"`` for the device whose number stands in each row.
    regions : Regions, or buffer
        The rows, or their bytes.
    """

    __slots__ = ()

    def __init__(self, device: str, regions: Regions | bytes) -> None:
        if isinstance(regions, bytes):
            regions = Regions(memoryview(regions).cast("Q", [len(regions) // 24, 3]))
        super().__init__([DeviceRows(device, regions)])

    def packed(self) -> bytes:
        """Return the rows as a msgpack array of arrays: device, address and length."""
        device, regions = self.parts[0]
        return rows.packed(regions, device.encode())

    def __reduce__(self) -> tuple[type[RowDescriptors], tuple[str, bytes]]:
        device, regions = self.parts[0]
        return RowDescriptors, (device, bytes(regions))

    def __repr__(self) -> str:
        return f"RowDescriptors({len(self)} regions)"


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


class BlockDescriptors(DescriptorTable):
    """The descriptors of blocks.

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

    __slots__ = ("groups",)

    def __init__(self, groups: Sequence[Group], tables: list[Regions] | None = None) -> None:
        self.groups: tuple[Group, ...] = tuple(groups)
        if tables is None:
            tables = [_table_of(group) for group in self.groups]
        pairs = zip(self.groups, tables, strict=True)
        super().__init__([DeviceRows(group.device, table) for group, table in pairs])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BlockDescriptors) and self.groups == other.groups:
            return True
        return super().__eq__(other)

    __hash__: ClassVar[None] = None

    def __reduce__(self) -> tuple[type[BlockDescriptors], tuple[tuple[Group, ...]]]:
        return BlockDescriptors, (self.groups,)

    def __repr__(self) -> str:
        return f"BlockDescriptors({len(self)} blocks in {len(self.groups)} groups)"


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
    room = U64 - group.ptr - group.size
    number = int(group.device.partition(":")[2] or 0)
    indices = memoryview(group.indices).cast("I" if group.width == 4 else "Q")
    try:
        return Regions.of_blocks(
            group.ptr, group.stride, group.size, number, room // group.stride + 1, indices
        )
    except (ValueError, OverflowError) as error:
        raise MetadataError(f"blocks: {error}") from None

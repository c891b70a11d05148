"""The wire format: what the passive side hands out and the active side needs.

JSON with four fields, the same as that of ``dynamo.nixl_connect``, and also a compact binary form.
Nothing here touches NIXL or a pointer: this module only decides whether a message is well-formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from nixl_connect._native import readers, usual
from nixl_connect._native.text import text_of
from nixl_connect.errors import ArgumentTypeError, MetadataError
from nixl_connect.memory.descriptor import Descriptor, SerializedDescriptor
from nixl_connect.memory.tables import FEW, BlockDescriptors, DescriptorTable, Group, RowDescriptors
from nixl_connect.model import Model
from nixl_connect.wire.codec import stream_of

# Versions of the binary form: each descriptor by itself, or groups of blocks.
_SINGLE, _GROUPED = 1, 2


if TYPE_CHECKING:
    _Described = list[SerializedDescriptor] | DescriptorTable
else:  # what msgspec reads
    _Described = list[SerializedDescriptor]


class RdmaMetadata(Model, frozen=True, kw_only=True):
    """What an active operation needs to reach the memory of a passive one.

    Parameters
    ----------
    descriptors : list of SerializedDescriptor
        The regions, in the order of the operation's descriptors. For blocks, and for more than 64
        of an operation or of a message, a sequence that creates each one on access.
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

    _described: ClassVar[type] = SerializedDescriptor

    if TYPE_CHECKING:

        def __post_init__(self) -> None: ...
    else:
        __post_init__ = usual.message

    def _settle(self) -> None:
        """Put right what is not as most are, or say what is wrong."""
        descriptors = self.descriptors
        if not isinstance(descriptors, DescriptorTable):
            if not isinstance(descriptors, list):
                raise MetadataError(f"descriptors must be a list, not {type(descriptors).__name__}")
            if any(type(item) is not SerializedDescriptor for item in descriptors):
                msgspec.structs.force_setattr(
                    self,
                    "descriptors",
                    [SerializedDescriptor.model_validate(each) for each in descriptors],
                )
        for text in (self.nixl_metadata, self.notification_key):
            if not isinstance(text, str):
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
        version = _SINGLE
        packed: Sequence[Any]
        if isinstance(described, BlockDescriptors):
            version, packed = _GROUPED, described.groups
        elif isinstance(described, RowDescriptors):
            packed = msgspec.Raw(described.packed())
        else:
            packed = [(item.device, item.ptr, item.size) for item in described]
        return _packer.encode((version, self.operation_kind, self.notification_key, stream, packed))

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
            elif (many := readers.unpacked(packed, FEW + 1)) is not None:
                described = RowDescriptors(many[0].decode(), many[1])
            else:
                described = [
                    SerializedDescriptor(device=device, ptr=ptr, size=size)
                    for device, ptr, size in _singles.decode(packed)
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
    def _of_many(cls, text: Any) -> RdmaMetadata | None:
        if isinstance(text, str):
            text = text.encode()
        # Of a field that comes twice, which may be spelled with escapes, only one would be read.
        if not isinstance(text, (bytes, bytearray)) or (
            b"\\" in text or text.count(b'"descriptors"') != 1
        ):
            return None
        try:
            message = _messages.decode(text)
            many = readers.read_json(message.descriptors, FEW + 1)
            if many is None:
                return None
            return cls(
                descriptors=RowDescriptors(many[0].decode(), many[1]),
                nixl_metadata=message.nixl_metadata,
                notification_key=message.notification_key,
                operation_kind=message.operation_kind,
            )
        except (msgspec.DecodeError, MetadataError):
            return None

    @classmethod
    def _of_plain(cls, obj: object) -> RdmaMetadata | None:
        if type(obj) is not dict:
            return None
        described = obj.get("descriptors")
        if type(described) is not list or len(described) <= FEW:
            return None
        many = readers.of_dicts(described)
        if many is None:
            return None
        others = msgspec.convert({**obj, "descriptors": []}, cls)
        table = RowDescriptors(many[0].decode(), many[1])
        return msgspec.structs.replace(others, descriptors=table)

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


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    """Metadata whose descriptors have not been read."""

    descriptors: msgspec.Raw = msgspec.Raw(b"")
    nixl_metadata: str = ""
    notification_key: str = ""
    operation_kind: int = 0


_messages = msgspec.json.Decoder(_Message)
_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(tuple[int, int, str, bytes, msgspec.Raw])
_singles = msgspec.msgpack.Decoder(list[tuple[str, int, int]])
_groups = msgspec.msgpack.Decoder(list[Group])

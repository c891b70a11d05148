"""What callers use of pydantic's models, without pydantic; and as the type of a field of one."""

import json

import pydantic
import pytest
from hypothesis import given
from messages import BAD, FIELDS, METADATA, changed, shown, with_region

import nixl_connect as nc
from nixl_connect import RdmaMetadata
from nixl_connect import SerializedDescriptor as Serialized


def test_parts_of_a_dump():
    metadata = RdmaMetadata(**FIELDS)
    whole = metadata.model_dump()
    assert metadata.model_dump(mode="json", by_alias=True, exclude_none=True) == whole
    assert metadata.model_dump(include={"operation_kind"}) == {
        "operation_kind": metadata.operation_kind
    }
    without = metadata.model_dump(exclude=["nixl_metadata"])
    assert sorted(without) == ["descriptors", "notification_key", "operation_kind"]
    assert json.loads(metadata.model_dump_json(exclude={"nixl_metadata"})) == without
    text = metadata.model_dump_json(indent=2)
    assert text.startswith('{\n  "descriptors"')
    assert json.loads(text) == whole
    for wrong in ("nixl_metadata", {"nixl_metadata": True}):
        with pytest.raises(nc.ArgumentTypeError, match="sets of names"):
            metadata.model_dump(exclude=wrong)


def test_a_copy_with_other_fields():
    metadata = RdmaMetadata(**FIELDS)
    assert metadata.model_copy() == metadata.model_copy(deep=True) == metadata
    other = metadata.model_copy(update={"notification_key": "mine"})
    assert other.notification_key == "mine"
    assert other.descriptors == metadata.descriptors
    with pytest.raises(nc.MetadataError):
        metadata.model_copy(update={"operation_kind": 9})


# --- pydantic -------------------------------------------------------------------------------------


def test_which_pydantic(capsys):
    """Says it, for test_pydantic.py."""
    with capsys.disabled():
        print(f"pydantic {pydantic.VERSION}")


class Request(pydantic.BaseModel):
    """As a program of the reference's users has it."""

    metadata: RdmaMetadata
    more: list[RdmaMetadata] = []
    region: Serialized | None = None


@given(METADATA)
def test_pydantic_field(metadata):
    request = Request(metadata=metadata, more=[metadata])
    assert request.metadata is metadata
    assert request.model_dump()["metadata"] == metadata.model_dump()
    assert Request.model_validate(request.model_dump()) == request
    assert Request.model_validate_json(request.model_dump_json()) == request
    read = Request.model_validate_json(request.model_dump_json())
    assert type(read.metadata) is type(read.more[0]) is RdmaMetadata


def test_pydantic_from_a_dict_with_instances():
    region = Serialized(device="cpu", ptr=1, size=1)
    request = Request(
        metadata=changed(descriptors=[region]), region={"device": "CPU", "ptr": 1, "size": 1}
    )
    assert request.metadata.descriptors == [region]
    assert request.region == region


class Carrier(pydantic.BaseModel):
    """Metadata that travels as a plain dict."""

    metadata: dict


def test_pydantic_carries_a_dict():
    metadata = RdmaMetadata(**FIELDS)
    text = Carrier(metadata=metadata.model_dump()).model_dump_json()
    assert RdmaMetadata.model_validate(Carrier.model_validate_json(text).metadata) == metadata


@pytest.mark.parametrize("fields", BAD, ids=shown)
def test_pydantic_refuses(fields):
    assert Request(metadata=FIELDS)
    if fields not in LAX:
        with pytest.raises(pydantic.ValidationError):
            Request(metadata=fields)
    with pytest.raises(pydantic.ValidationError):
        Request.model_validate_json(json.dumps({"metadata": fields}), strict=True)


# pydantic's lax mode makes numbers of these by itself, as it does in the reference.
LAX = [
    changed(operation_kind="1"),
    changed(operation_kind=True),
    with_region(ptr="4096"),
    with_region(ptr=True),
    with_region(size="16"),
    with_region(size=True),
]


def test_schema():
    schema = nc.RdmaMetadata.model_json_schema()
    assert schema == pydantic.TypeAdapter(nc.RdmaMetadata).json_schema()
    assert set(schema["properties"]) == set(nc.RdmaMetadata.__struct_fields__)


def test_pydantic_schema():
    schema = Request.model_json_schema()
    metadata = schema["properties"]["metadata"]
    if "$ref" in metadata:
        metadata = schema["$defs"][metadata["$ref"].rsplit("/", 1)[1]]
    assert set(metadata["properties"]) == set(FIELDS)
    assert metadata["additionalProperties"] is False
    assert {name: item.get("type") for name, item in metadata["properties"].items()} == {
        "descriptors": "array",
        "nixl_metadata": "string",
        "notification_key": "string",
        "operation_kind": "integer",
    }
    assert Request.model_json_schema(mode="serialization")["properties"].keys() == (
        schema["properties"].keys()
    )


def test_an_outer_model_excludes_the_whole_only():
    request = Request(metadata=FIELDS)
    whole = request.model_dump()
    assert request.model_dump(exclude={"metadata": {"nixl_metadata"}}) == whole
    assert "metadata" not in request.model_dump(exclude={"metadata"})


def test_options_of_pydantic():
    """Those that change nothing are taken, the others are not passed over."""
    metadata = RdmaMetadata(**FIELDS)
    assert metadata.model_dump(by_alias=True, exclude_none=True, warnings=False) == FIELDS
    assert RdmaMetadata.model_validate(FIELDS, strict=True, context={}) == metadata
    assert RdmaMetadata.model_validate_json(metadata.model_dump_json(), strict=False) == metadata
    for call in (
        lambda: metadata.model_dump(exclude_unset=True),
        lambda: metadata.model_dump_json(exclude_defaults=True),
        lambda: RdmaMetadata.model_validate(FIELDS, extra="allow"),
    ):
        with pytest.raises(nc.ArgumentTypeError, match="there is no option"):
            call()

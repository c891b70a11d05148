"""Metadata for tests: any that is valid, one to change, and what is not valid."""

import zlib

from hypothesis import strategies as st

from nixl_connect import RdmaMetadata
from nixl_connect import SerializedDescriptor as Serialized
from nixl_connect._native.text import text_of

TOP = 2**64 - 1

DEVICE = st.just("cpu") | st.builds(
    "{}:{}".format, st.sampled_from(["cuda", "xpu"]), st.integers(0, 99_999)
)
KEY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@st.composite
def serialized(draw):
    ptr = draw(st.integers(1, TOP))
    return Serialized(device=draw(DEVICE), ptr=ptr, size=draw(st.integers(0, TOP - ptr)))


@st.composite
def wire_texts(draw):
    stream = zlib.compress(draw(st.binary(max_size=200)))
    return draw(st.sampled_from([text_of(stream), stream.hex()]))


METADATA = st.builds(
    RdmaMetadata,
    descriptors=st.lists(serialized(), max_size=5),
    nixl_metadata=wire_texts(),
    notification_key=KEY,
    operation_kind=st.integers(0, 2),
)

FIELDS = {
    "descriptors": [{"device": "cuda:1", "ptr": 4096, "size": 16}],
    "nixl_metadata": "b64:eJwDAAAAAAE=",
    "notification_key": "key",
    "operation_kind": 1,
}


def changed(**fields):
    return FIELDS | fields


def with_region(**fields):
    return changed(descriptors=[FIELDS["descriptors"][0] | fields])


BAD = [
    changed(more=1),
    changed(Descriptors=[]),
    changed(descriptors=None),
    changed(descriptors={}),
    changed(descriptors="[]"),
    changed(descriptors=[None]),
    changed(descriptors=[[1, 2, 3]]),
    changed(nixl_metadata=None),
    changed(nixl_metadata=5),
    changed(nixl_metadata=["00"]),
    changed(notification_key=None),
    changed(notification_key=5),
    changed(operation_kind=-1),
    changed(operation_kind=3),
    changed(operation_kind=2**70),
    changed(operation_kind="1"),
    changed(operation_kind=1.5),
    changed(operation_kind=True),
    changed(operation_kind=None),
    with_region(device=None),
    with_region(device=5),
    with_region(device=""),
    with_region(device="tpu"),
    with_region(device="cuda:"),
    with_region(device="cuda:-1"),
    with_region(device="cuda:1000000"),
    with_region(device="cuda:\u0661"),
    with_region(ptr=0),
    with_region(ptr=-1),
    with_region(ptr=2**64),
    with_region(ptr=1.5),
    with_region(ptr="4096"),
    with_region(ptr=True),
    with_region(ptr=None),
    with_region(size=-1),
    with_region(size=2**64),
    with_region(size="16"),
    with_region(size=True),
    with_region(size=1.5),
    with_region(ptr=TOP, size=1),
    with_region(ptr=2**63, size=2**63),
    with_region(more=1),
    changed(descriptors=[{}]),
    changed(descriptors=[{"device": "cpu"}]),
]


def shown(fields):
    return repr({k: v for k, v in fields.items() if FIELDS.get(k) != v})[:70]

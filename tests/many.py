"""Many descriptors for tests, and what msgspec makes of them one by one."""

import msgspec
from hypothesis import strategies as st

import nixl_connect as nc
from nixl_connect._native.packing import Regions
from nixl_connect.memory.descriptor import SerializedDescriptor as Serialized
from nixl_connect.memory.tables import FEW, RowDescriptors

TOP = 2**64 - 1


MANY = FEW + 1


# What JSON is made of.
PARTS = b'0123456789,:"[]{} .eE+-\\'


SINGLES = msgspec.msgpack.Decoder(list[tuple[str, int, int]])


@st.composite
def tables(draw, least=1, most=6):
    kind = draw(st.sampled_from(["cpu", "cuda:", "xpu:"]))
    numbers = st.just(0) if kind == "cpu" else st.integers(0, 99_999)
    count = draw(st.integers(least, most))
    found = []
    for _ in range(count):
        ptr = draw(st.integers(1, TOP - 1) | st.integers(1, 300))
        size = draw(st.integers(1, min(TOP - ptr, TOP // count)))
        found.append((ptr, size, draw(numbers)))
    return RowDescriptors(kind, Regions(found))


def metadata_of(descriptors):
    return nc.RdmaMetadata(
        descriptors=descriptors, nixl_metadata="b64:AA==", notification_key="k", operation_kind=1
    )


def typed(text):
    """Read JSON as msgspec does, which is given the types; None if it is refused."""
    try:
        return msgspec.json.decode(text, type=list[Serialized])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None

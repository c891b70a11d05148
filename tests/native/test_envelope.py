"""The parser of NIXL's metadata: reads what NIXL writes, refuses all else, and never crashes."""

import struct
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nixl_connect._native import envelope
from nixl_connect._native.agent import Agent
from nixl_connect._native.envelope import Envelope, Section
from nixl_connect._native.hold import Hold
from nixl_connect._native.packing import Regions
from nixl_connect.backend import library
from nixl_connect.peers.registrations import registry_of

MAGIC = b"nixlSerDes|"
TOP = 2**64 - 1


def field(tag, payload):
    return tag + struct.pack("<Q", len(payload)) + payload + b"|"


def number(tag, value, width=8):
    return field(tag, value.to_bytes(width, "little"))


def region(address, length, device, key):
    return field(b"", struct.pack("<QQQ", address, length, device) + key)


def section(item):
    return b"".join(
        [
            field(b"bknd", item.backend.encode()),
            field(b"nixlDList", b"nixlSDList"),
            number(b"t", item.mem_type, 4),
            number(b"n", len(item.regions)),
            *(region(*row) for row in item.regions),
        ]
    )


def head(agent, connections):
    return b"".join(
        [
            MAGIC,
            field(b"Agent", agent.encode()),
            number(b"Conns", len(connections)),
            *(field(b"t", k.encode()) + field(b"c", v) for k, v in connections.items()),
        ]
    )


def tail(sections):
    return b"".join(
        [
            field(b"", b"MemSection"),
            number(b"nixlSecElms", len(sections)),
            *(section(item) for item in sections),
        ]
    )


def build(agent, connections, sections):
    """Lay out metadata as NIXL does, written independently of the parser."""
    return head(agent, connections) + tail(sections)


ADDRESS = st.integers(0, 2**64 - 1)
NAME = st.text(
    st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20
) | st.sampled_from(["worker-1", "MemSection", "Agent|", "a b", "t"])
OPAQUE = st.binary(min_size=1, max_size=60) | st.sampled_from([b"|", b"nixlSerDes|", b"MemSection"])


@st.composite
def rows(draw):
    address = draw(ADDRESS)
    length = draw(st.integers(0, TOP - address))
    return address, length, draw(st.integers(0, TOP)), draw(st.binary(max_size=60))


SECTION = st.builds(Section, NAME, st.integers(0, 5), st.lists(rows(), max_size=4))
PARTS = st.tuples(NAME, st.dictionaries(NAME, OPAQUE, max_size=3), st.lists(SECTION, max_size=3))

ONE = build("worker", {"UCX": b"address"}, [Section("UCX", 0, [(4096, 64, 0, b"key")])])


def expect(parts):
    agent, connections, sections = parts
    return Envelope(agent, connections, sections, len(head(agent, connections)))


def parse_or_value_error(blob):
    """Parse; any error but a ValueError fails the test."""
    try:
        parsed = envelope.parse(blob)
    except ValueError:
        return None
    assert isinstance(parsed, Envelope)
    return parsed


# --- what NIXL itself writes ----------------------------------------------------------------------


@pytest.fixture
def agent():
    library.load()
    agent = Agent(b"envelope")
    agent.create_backend(b"UCX", {})
    yield agent
    agent.close()


@pytest.fixture
def memory(agent):
    """The rows of three registered regions."""
    arrays = [np.zeros(size, np.uint8) for size in (64, 4096, 100_000)]
    table = [(array.ctypes.data, array.nbytes, 0) for array in arrays]
    hold = Hold(registry_of(agent))
    hold.acquire(Regions(table), 0)
    yield table
    hold.release()


def spans(parsed):
    return sorted(row[:3] for item in parsed.sections for row in item.regions)


def test_metadata_of_an_agent(agent):
    parsed = envelope.parse(agent.metadata())
    assert parsed.agent == "envelope"
    assert set(parsed.connections) == {"UCX"}
    assert parsed.connections["UCX"]


def test_metadata_of_registered_memory(agent, memory):
    parsed = envelope.parse(agent.metadata())
    assert spans(parsed) == sorted(memory)
    assert {(item.backend, item.mem_type) for item in parsed.sections} == {("UCX", 0)}
    assert all(row[3] for item in parsed.sections for row in item.regions)


def test_real_metadata_is_what_the_builder_of_this_test_makes(agent, memory):
    blob = agent.metadata()
    parsed = envelope.parse(blob)
    assert build(parsed.agent, parsed.connections, parsed.sections) == blob


def joined(connections, regions):
    """One agent's connection info and its regions, which NIXL's C API gives apart."""
    at = envelope.parse(connections).sections_at
    return connections[:at] + envelope.sections_of(regions)


def test_sections_of_all_regions_make_the_full_metadata(agent, memory):
    connections = agent.partial_metadata(None, 0)
    regions = agent.partial_metadata(Regions(memory), 0)
    assert envelope.parse(regions).connections == {}
    assert joined(connections, regions) == agent.metadata()


def test_sections_name_the_given_regions_only(agent, memory):
    full = envelope.parse(agent.metadata())
    connections = agent.partial_metadata(None, 0)
    for row in memory:
        parsed = envelope.parse(joined(connections, agent.partial_metadata(Regions([row]), 0)))
        assert (parsed.agent, parsed.connections) == (full.agent, full.connections)
        assert spans(parsed) == [row]
        known = {item[:3]: item[3] for part in full.sections for item in part.regions}
        assert parsed.sections[0].regions[0][3] == known[row]


def test_every_truncation_of_real_metadata(agent, memory):
    blob = agent.metadata()
    for size in range(len(blob)):
        with pytest.raises(ValueError, match=r"."):
            envelope.parse(blob[:size])


def test_every_flipped_bit_of_real_metadata(agent, memory):
    blob = agent.metadata()
    for bit in range(8 * len(blob)):
        bent = bytearray(blob)
        bent[bit // 8] ^= 1 << bit % 8
        parsed = parse_or_value_error(bytes(bent))
        # What still parses is a change that the parser has read, not one that it skipped.
        assert parsed is None or build(*parsed[:3]) == bent


# --- what a test makes ----------------------------------------------------------------------------


@given(PARTS)
def test_round_trip(parts):
    assert envelope.parse(build(*parts)) == expect(parts)


@given(PARTS, PARTS)
def test_sections_of_one_joined_to_another(one, other):
    connections, regions = build(*one), build(other[0], {}, other[2])
    parsed = envelope.parse(joined(connections, regions))
    assert parsed == expect((one[0], one[1], other[2]))


@pytest.mark.parametrize(
    ("blob", "text"), [(b"regions", "start"), (ONE, "connection info"), (ONE[:20], "Agent")]
)
def test_sections_of_what_is_not_as_expected(blob, text):
    with pytest.raises(ValueError, match=text):
        envelope.sections_of(blob)


@given(PARTS, st.data())
def test_truncated(parts, data):
    blob = build(*parts)
    cut = data.draw(st.integers(0, len(blob) - 1))
    with pytest.raises(ValueError, match=r"."):
        envelope.parse(blob[:cut])


@given(PARTS, st.binary(min_size=1, max_size=20))
def test_followed_by_more(parts, more):
    with pytest.raises(ValueError, match="follow"):
        envelope.parse(build(*parts) + more)


@st.composite
def mutated(draw):
    blob = bytearray(build(*draw(PARTS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(blob)))
        match draw(st.sampled_from(["flip", "insert", "cut", "length", "copy"])):
            case "flip" if at < len(blob):
                blob[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                blob[at:at] = draw(st.binary(min_size=1, max_size=40))
            case "cut":
                del blob[at : at + draw(st.integers(1, 40))]
            case "length":
                # Any eight bytes may be a length or a count.
                value = draw(st.integers(0, 300) | st.integers(0, TOP) | st.just(TOP))
                blob[at : at + 8] = struct.pack("<Q", value)
            case "copy":
                source = draw(st.integers(0, len(blob)))
                blob[at:at] = blob[source : source + draw(st.integers(1, 100))]
    return bytes(blob)


@settings(max_examples=800)
@given(mutated())
def test_mutated(blob):
    """Parses to something that lays out to the same bytes, or is a ValueError; nothing else."""
    parsed = parse_or_value_error(blob)
    if parsed is not None:
        assert build(*parsed[:3]) == blob
        assert parsed.sections_at == len(head(*parsed[:2]))


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"")
@example(MAGIC)
def test_noise(noise):
    with pytest.raises(ValueError, match=r"."):
        envelope.parse(noise)
    parse_or_value_error(MAGIC + noise)
    parse_or_value_error(head("worker", {}) + noise)


def with_section(mem_type=b"\0\0\0\0", count=0, after=b"", kind=b"nixlSDList"):
    return b"".join(
        [
            head("worker", {}),
            field(b"", b"MemSection"),
            number(b"nixlSecElms", 1),
            field(b"bknd", b"UCX"),
            field(b"nixlDList", kind),
            field(b"t", mem_type),
            number(b"n", count),
            after,
        ]
    )


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"nixlSerDes",
        MAGIC.lower() + ONE[len(MAGIC) :],
        b" " + ONE,
        ONE + b"|",
        build("", {}, []),
        build("a\0b", {}, []),
        build("a\nb", {}, []),
        build("a" * 2000, {}, []),
        build("a", {"": b"c"}, []),
        build("a", {"U\0": b"c"}, []),
        build("a", {"UCX": b""}, []),
        build("a", {f"b{i}": b"c" for i in range(1000)}, []),
        build("a", {}, [Section("", 0, [])]),
        build("a", {}, [Section("UCX", 6, [])]),
        build("a", {}, [Section("UCX", 2**32 - 1, [])]),
        build("a", {}, [Section("UCX", 0, [])] * 1000),
        build("a", {}, [Section("UCX", 0, [(TOP, 1, 0, b"key")])]),
        build("a", {}, [Section("UCX", 0, [(1, 1, 0, b"k" * 100_000)])]),
        MAGIC + field(b"Agent", b"\xff\xfe") + number(b"Conns", 0) + tail([]),
        MAGIC + number(b"Conns", 0) + field(b"Agent", b"a") + tail([]),
        MAGIC + field(b"Agent", b"a") + number(b"Conns", 0, 4) + tail([]),
        MAGIC + field(b"Agent", b"a") + field(b"Conns", b"") + tail([]),
        MAGIC + field(b"Agent", b"a") + number(b"Conns", 2)
        + (field(b"t", b"UCX") + field(b"c", b"x")) * 2 + tail([]),
        MAGIC + field(b"Agent", b"a") + number(b"Conns", 1) + tail([]),
        head("a", {}),
        head("a", {}) + field(b"", b"MemSectioN") + number(b"nixlSecElms", 0),
        head("a", {}) + field(b"", b"MemSection"),
        head("a", {}) + field(b"", b"MemSection") + number(b"nixlSecElms", 1),
        with_section(kind=b"nixlBDList"),
        with_section(mem_type=bytes(8)),
        with_section(mem_type=b""),
        with_section(count=1, after=field(b"", bytes(23))),
        with_section(count=1, after=field(b"x", bytes(24))),
        with_section(count=2, after=field(b"", bytes(24))),
        with_section(count=0, after=field(b"", bytes(24))),
    ],
    ids=lambda item: repr(item[len(MAGIC) : len(MAGIC) + 30]),
)  # fmt: skip
def test_malformed(blob):
    with pytest.raises(ValueError, match=r"."):
        envelope.parse(blob)


def test_the_builders_of_malformed_metadata_make_valid_metadata_too():
    """Else the cases above might be refused for another reason."""
    assert envelope.parse(ONE).agent == "worker"
    assert envelope.parse(with_section()).sections == [Section("UCX", 0, [])]
    rows = envelope.parse(with_section(count=1, after=field(b"", bytes(24)))).sections[0].regions
    assert rows == [(0, 0, 0, b"")]
    envelope.parse(build("a" * 1024, {}, []))
    envelope.parse(build("a", {}, [Section("UCX", 5, [])]))


@pytest.mark.parametrize("count", [65, 2**16, 2**31, 2**32, 2**56, 2**63 - 1, 2**63, TOP])
def test_count_bombs(count):
    """A count that no bytes stand behind is refused before anything is allocated for it."""
    start = MAGIC + field(b"Agent", b"a")
    for blob in (
        start + number(b"Conns", count) + tail([]),
        start + number(b"Conns", 0) + field(b"", b"MemSection") + number(b"nixlSecElms", count),
        with_section(count=count, after=bytes(1000)),
        MAGIC + b"Agent" + struct.pack("<Q", count) + bytes(100),
    ):
        allocated = sys.getallocatedblocks()
        with pytest.raises(ValueError, match=r"."):
            envelope.parse(blob)
        assert sys.getallocatedblocks() - allocated < 1000


@pytest.mark.parametrize("blob", [None, "nixlSerDes|", bytearray(ONE), memoryview(ONE), 5])
def test_not_bytes(blob):
    with pytest.raises(TypeError):
        envelope.parse(blob)
    with pytest.raises(TypeError):
        envelope.sections_of(blob)


def test_errors_say_where():
    with pytest.raises(ValueError, match=rf"'Conns' at byte {len(MAGIC) + 5 + 8 + 6 + 1}"):
        envelope.parse(MAGIC + field(b"Agent", b"worker") + field(b"Nope", bytes(8)) + tail([]))


def test_written_is_read(agent, memory):
    """What is written is what NIXL writes, byte for byte."""
    blob = agent.metadata()
    described = envelope.parse(blob)
    assert described.sections
    assert envelope.write(blob[: described.sections_at], described.sections) == blob


ROWS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 1)), min_size=1)


@given(regions=ROWS, rows=ROWS, mem_type=st.integers(0, 1))
def test_what_names_hold(regions, rows, mem_type):
    """Against a search through all regions for each row."""
    named = [(*region, b"key %d" % i) for i, region in enumerate(regions)]
    sections = [Section("POSIX", mem_type, named[:1]), Section("UCX", 0, named)]
    expected = [
        section
        for section in sections
        if section.mem_type == 0
        and all(
            any(
                start <= row[0] and row[0] + row[1] <= start + length and row[2] == device
                for start, length, device, _ in section.regions
            )
            for row in rows
        )
    ]
    assert envelope.names(sections, Regions(rows), 0) == bool(expected)
    found = envelope.row_by_row(sections, Regions(rows), 0)
    assert [item.backend for item in found] == [section.backend for section in expected]
    for item, section in zip(found, expected, strict=True):
        assert {region[:3] for region in item.regions} == set(rows)
        for start, length, device, key in item.regions:
            assert any(
                known[3] == key
                and known[0] <= start
                and start + length <= known[0] + known[1]
                and known[2] == device
                for known in section.regions
            )

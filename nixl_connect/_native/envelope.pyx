"""Strict parser and splicer of NIXL's metadata.

NIXL parses what a peer sends with little care: malformed metadata ends in a crash. So nothing
reaches it that this parser has not read from end to end. The layout is private to NIXL
(``serdes.cpp`` and ``nixl_memory_section.cpp``), read from its sources and proved against the
agent's own metadata when a connection opens.

A blob is the magic and then fields: tag, 8-byte little-endian length, payload, ``|``::

    nixlSerDes|
    Agent        the agent's name
    Conns        number of connections (8 bytes), then for each
        t            backend
        c            its connection info, opaque
    (empty tag)  "MemSection"
    nixlSecElms  number of sections (8 bytes), then for each
        bknd         backend
        nixlDList    "nixlSDList"
        t            memory type (4 bytes)
        n            number of regions (8 bytes), then for each
            (empty tag)  address, length, device (8 bytes each), then the key, opaque
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from nixl_connect._native.named cimport Holders, Named, Region
from nixl_connect._native.packing cimport Regions

from typing import NamedTuple

cdef bytes _MAGIC = b"nixlSerDes|"
cdef bytes _NAME = b"Agent"
cdef bytes _SEPARATOR = b"\t"    # no name has one: it is not printable

# Far above what NIXL writes, low enough that no count can be used to make us allocate.
cdef enum:
    MAX_CONNECTIONS = 64
    MAX_SECTIONS = 64
    MAX_NAME = 1024
    MAX_KEY = 65536
    REGION_FIELD = 8 + 24 + 1   # the smallest field that holds a region


class Section(NamedTuple):
    """The regions of one backend and memory type.

    Attributes
    ----------
    backend : str
        Its name.
    mem_type : int
        NIXL's number of the memory type.
    regions : Named, or list of (int, int, int, bytes)
        Address, length in bytes, device and key of each.
    """

    backend: str
    mem_type: int
    regions: list[tuple[int, int, int, bytes]] | Named


class Envelope(NamedTuple):
    """What a blob of NIXL's metadata says.

    Attributes
    ----------
    agent : str
        The agent's name.
    connections : dict of str to bytes
        Opaque connection info by backend.
    sections : list of Section
        Its regions.
    sections_at : int
        Offset of the part that follows the connections.
    """

    agent: str
    connections: dict[str, bytes]
    sections: list[Section]
    sections_at: int


cdef class _Reader:
    cdef const unsigned char* data
    cdef Py_ssize_t size
    cdef Py_ssize_t at
    cdef Py_ssize_t payload     # where the payload of the last field starts

    cdef Py_ssize_t field(self, bytes tag) except -1:
        """Read one field; return the size of its payload and set `payload` to its offset."""
        cdef Py_ssize_t tag_size = len(tag)
        cdef uint64_t length
        if self.size - self.at < tag_size + 8:
            raise ValueError(f"ends at byte {self.at}, inside the field {tag.decode()!r}")
        if memcmp(self.data + self.at, <const char*>tag, tag_size):
            raise ValueError(f"no field {tag.decode()!r} at byte {self.at}")
        memcpy(&length, self.data + self.at + tag_size, 8)
        self.payload = self.at + tag_size + 8
        if length >= <uint64_t>(self.size - self.payload):
            raise ValueError(f"field {tag.decode()!r} at byte {self.at} leaves the metadata")
        if self.data[self.payload + <Py_ssize_t>length] != c"|":
            raise ValueError(f"field {tag.decode()!r} at byte {self.at} is not terminated")
        self.at = self.payload + <Py_ssize_t>length + 1
        return <Py_ssize_t>length

    cdef bytes blob(self, bytes tag):
        cdef Py_ssize_t length = self.field(tag)
        if length == 0:
            raise ValueError(f"field {tag.decode()!r} is empty")
        return self.data[self.payload:self.payload + length]

    cdef str name(self, bytes tag):
        """Read a printable name. NIXL's C API cuts names at a null, so none may hold one."""
        cdef bytes raw = self.blob(tag)
        if len(raw) > MAX_NAME:
            raise ValueError(f"field {tag.decode()!r} has {len(raw)} bytes")
        name = raw.decode("utf-8")
        if not name.isprintable():
            raise ValueError(f"field {tag.decode()!r} is not printable")
        return name

    cdef uint64_t number(self, bytes tag, uint64_t limit, int width=8) except? 0xDEAD:
        cdef uint64_t value = 0
        if self.field(tag) != width:
            raise ValueError(f"field {tag.decode()!r} is not of {width} bytes")
        memcpy(&value, self.data + self.payload, width)
        if value > limit:
            raise ValueError(f"field {tag.decode()!r} is {value}, over {limit}")
        return value

    cdef int region(self, Region* region) except -1:
        cdef Py_ssize_t length = self.field(b"")
        if length < 24 or length > 24 + MAX_KEY:
            raise ValueError(f"a region of {length} bytes")
        memcpy(&region.address, self.data + self.payload, 8)
        memcpy(&region.length, self.data + self.payload + 8, 8)
        memcpy(&region.device, self.data + self.payload + 16, 8)
        if region.length > UINT64_MAX - region.address:
            raise ValueError(
                f"{region.length} bytes from {region.address:#x} leave the address space"
            )
        region.key = self.payload + 24
        region.key_size = length - 24
        return 0


def parse(bytes blob not None) -> Envelope:
    """Parse NIXL's metadata.

    Parameters
    ----------
    blob : bytes
        As NIXL wrote it, not compressed.

    Raises
    ------
    ValueError
        Anything at all is not as NIXL writes it, a byte too many included; the text says where.
    """
    cdef _Reader reader = _Reader()
    cdef Py_ssize_t count
    cdef Py_ssize_t i
    cdef Named regions
    reader.data = blob
    reader.size = len(blob)
    if not blob.startswith(_MAGIC):
        raise ValueError("does not start as NIXL's metadata does")
    reader.at = len(_MAGIC)
    agent = reader.name(_NAME)
    connections = {}
    for _ in range(reader.number(b"Conns", MAX_CONNECTIONS)):
        backend = reader.name(b"t")
        if backend in connections:
            raise ValueError(f"two connections for {backend!r}")
        connections[backend] = reader.blob(b"c")
    sections_at = reader.at
    if reader.blob(b"") != b"MemSection":
        raise ValueError("has no memory section")
    sections = []
    for _ in range(reader.number(b"nixlSecElms", MAX_SECTIONS)):
        backend = reader.name(b"bknd")
        if reader.blob(b"nixlDList") != b"nixlSDList":
            raise ValueError("a section is not a list of regions")
        mem_type = reader.number(b"t", 5, 4)
        count = reader.number(b"n", <uint64_t>(reader.size // REGION_FIELD))
        regions = Named()
        regions.allocate(blob, count)
        for i in range(count):
            reader.region(&regions.regions[i])
        sections.append(tuple.__new__(Section, (backend, mem_type, regions)))
    if reader.at != reader.size:
        raise ValueError(f"{reader.size - reader.at} bytes follow its end")
    # Directly: a named tuple's own constructor is a function of Python.
    return tuple.__new__(Envelope, (agent, connections, sections, sections_at))


cdef bytes _field(bytes tag, bytes payload):
    cdef uint64_t length = len(payload)
    return tag + (<char*>&length)[:8] + payload + b"|"


cdef bytes _number(uint64_t value):
    return (<char*>&value)[:8]


def write(bytes head not None, list sections not None) -> bytes:
    """Return metadata with these sections: the inverse of `parse`.

    Parameters
    ----------
    head : bytes
        Metadata up to its sections, ``blob[:sections_at]``, which has been parsed.
    sections : list of Section
        What follows.
    """
    cdef uint64_t[3] row
    cdef uint32_t mem_type
    cdef list parts = [head, _field(b"", b"MemSection")]
    parts.append(_field(b"nixlSecElms", _number(len(sections))))
    for section in sections:
        mem_type = section.mem_type
        parts.append(_field(b"bknd", section.backend.encode()))
        parts.append(_field(b"nixlDList", b"nixlSDList"))
        parts.append(_field(b"t", (<char*>&mem_type)[:4]))
        parts.append(_field(b"n", _number(len(section.regions))))
        for address, length, device, key in section.regions:
            row[0], row[1], row[2] = address, length, device
            parts.append(_field(b"", (<char*>row)[:24] + <bytes>key))
    return b"".join(parts)


cpdef bint names(list sections, Regions regions, int mem_type) except -1:
    """Whether a section of this memory type names memory that holds each of the rows."""
    cdef Py_ssize_t i
    cdef Holders holders
    for section in sections:
        if section.mem_type == mem_type:
            holders = Holders(section.regions)
            for i in range(regions.count):
                if holders.of(&regions.rows[3 * i]) < 0:
                    break
            else:
                return True
    return False


def row_by_row(list sections not None, Regions regions not None, int mem_type) -> list[Section]:
    """Return sections whose regions are these rows, each with the key of a region that holds it.

    Of the sections that hold all of them: see `names`.
    """
    cdef Py_ssize_t i
    cdef Py_ssize_t holder
    cdef Holders holders
    cdef uint64_t* row
    found = []
    for section in sections:
        if section.mem_type != mem_type:
            continue
        holders = Holders(section.regions)
        rows = {}
        for i in range(regions.count):
            row = &regions.rows[3 * i]
            holder = holders.of(row)
            if holder < 0:
                break
            rows[row[0], row[1], row[2], holders.regions.key(holder)] = None
        else:
            found.append(Section(section.backend, mem_type, list(rows)))
    return found


def alias_of(str name not None, int number) -> bytes:
    """Return another name for an agent; each number makes one that no other agent has."""
    return name.encode() + _SEPARATOR + str(number).encode()


def name_of(bytes alias not None) -> bytes:
    """Return the name of an agent that may go by another."""
    return alias.partition(_SEPARATOR)[0]


def renamed(bytes blob not None, bytes alias not None) -> bytes:
    """Return metadata, which has been parsed, with another name of its agent."""
    cdef uint64_t length
    cdef Py_ssize_t at = len(_MAGIC) + len(_NAME)
    memcpy(&length, <const char*>blob + at, 8)
    return blob[:at] + len(alias).to_bytes(8, "little") + alias + blob[at + 8 + length:]


cpdef bytes sections_of(bytes blob):
    """Return the part of an agent's own metadata that follows the connections.

    Parameters
    ----------
    blob : bytes
        Metadata without connection info, to be joined to that with: the C API gives them apart.

    Raises
    ------
    ValueError
        It does not begin as the agent's metadata does.
    """
    cdef _Reader reader = _Reader()
    reader.data = blob
    reader.size = len(blob)
    if not blob.startswith(_MAGIC):
        raise ValueError("does not start as NIXL's metadata does")
    reader.at = len(_MAGIC)
    reader.blob(_NAME)
    if reader.number(b"Conns", MAX_CONNECTIONS) != 0:
        raise ValueError("has connection info")
    return blob[reader.at:]

# Made by "make stubs" from the .pyx file beside it: do not edit.
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

from typing import NamedTuple

from nixl_connect._native.named import Named
from nixl_connect._native.packing import Regions

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

def parse(blob: bytes) -> Envelope:
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

def write(head: bytes, sections: list[Section]) -> bytes:
    """Return metadata with these sections: the inverse of `parse`.

    Parameters
    ----------
    head : bytes
        Metadata up to its sections, ``blob[:sections_at]``, which has been parsed.
    sections : list of Section
        What follows.
    """

def names(sections: list[Section], regions: Regions, mem_type: int) -> bool:
    """Whether a section of this memory type names memory that holds each of the rows."""

def row_by_row(sections: list[Section], regions: Regions, mem_type: int) -> list[Section]:
    """Return sections whose regions are these rows, each with the key of a region that holds it.

    Of the sections that hold all of them: see `names`.
    """

def alias_of(name: str, number: int) -> bytes:
    """Return another name for an agent; each number makes one that no other agent has."""

def name_of(alias: bytes) -> bytes:
    """Return the name of an agent that may go by another."""

def renamed(blob: bytes, alias: bytes) -> bytes:
    """Return metadata, which has been parsed, with another name of its agent."""

def sections_of(blob: bytes) -> bytes:
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

# Made by "make stubs" from the .pyx file beside it: do not edit.
from typing import NamedTuple

class Section(NamedTuple):
    backend: str
    mem_type: int
    regions: list[tuple[int, int, int, bytes]]

class Envelope(NamedTuple):
    agent: str
    connections: dict[str, bytes]
    sections: list[Section]
    sections_at: int

def parse(blob: bytes) -> Envelope: ...
def alias_of(name: str, number: int) -> bytes: ...
def name_of(alias: bytes) -> bytes: ...
def renamed(blob: bytes, alias: bytes) -> bytes: ...
def sections_of(blob: bytes) -> bytes: ...

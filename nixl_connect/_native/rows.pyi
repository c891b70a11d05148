# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Rows as two programs send them to each other: JSON, msgpack, and what seals cover.

All rows are of one kind of device. Its name is given as ``b"cpu"``, or as ``b"cuda:"``, say, which
the number of each row follows. `readers` reads what is written here.
"""

from nixl_connect._native.packing import Regions

def json_of(regions: Regions, device: bytes) -> bytes:
    """Return ``{"device":"cpu","ptr":1,"size":2}`` for each row, with commas between them."""

def listed(regions: Regions, device: bytes) -> bytes:
    """Return ``;<device>,<address>,<length>`` for each row, in decimal: for seals."""

def packed(regions: Regions, device: bytes) -> bytes:
    """Return a msgpack array of arrays: device, address and length of each row."""

def plain(regions: Regions, device: bytes) -> list[dict[str, str | int]]:
    """Return a dict of each row, with its `device`, `ptr` and `size`."""

def same(one: Regions, other: Regions) -> bool:
    """Whether two tables have the same rows."""

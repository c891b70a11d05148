# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Rows as what two programs send each other: JSON, msgpack, and what seals cover.

Written here is the canonical form of many descriptors, and read here is that form alone: whatever
is spelled in another way, or wrong, is left to whoever asks, who reads every form and says what is
wrong. What is read comes from strangers.

All rows are of one kind of device. Its name is given and returned as ``b"cpu"``, or ``b"cuda:"``,
say, which the number of each row follows.
"""

from nixl_connect._native.packing import Regions
from nixl_connect.region import SerializedDescriptor

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

def of_list(items: list[SerializedDescriptor]) -> tuple[bytes, Regions] | None:
    """Return the rows of descriptors that have been read one by one. Results as for `read_json`."""

def read_json(text: object, least: int) -> tuple[bytes, Regions] | None:
    """Read what `json_of` writes, in brackets, with or without space between its parts.

    Parameters
    ----------
    text : buffer
        The text.
    least : int
        How many rows there have to be.

    Returns
    -------
    device : bytes
    rows : Regions
        Or None in place of both, if it is anything else.
    """

def unpacked(data: object, least: int) -> tuple[bytes, Regions] | None:
    """Read what `packed` writes. Parameters and results are those of `read_json`."""

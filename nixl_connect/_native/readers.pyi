# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Reads many descriptors as rows: what `rows` writes, and that alone.

Whatever is spelled in another way, or wrong, is left to whoever asks, who reads every form and says
what is wrong. What is read comes from strangers.

All rows are of one kind of device. Its name is returned as ``b"cpu"``, or as ``b"cuda:"``, say,
which the number of each row follows.
"""

from collections.abc import Sequence

from nixl_connect._native.packing import Regions

def of_list(items: Sequence[object]) -> tuple[bytes, Regions] | None:
    """Return the rows of descriptors that have been read one by one. Results as for `read_json`."""

def of_dicts(items: list[object]) -> tuple[bytes, Regions] | None:
    """Return the rows of dicts as `rows.plain` makes them. Results as for `read_json`."""

def read_json(text: object, least: int) -> tuple[bytes, Regions] | None:
    """Read what `rows.json_of` writes, in brackets, with or without space between its parts.

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
    """Read what `rows.packed` writes. Parameters and results are those of `read_json`."""

# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Whether rows overlap: destinations with each other, or with sources that are in their process.

Nobody knows in which order, or in what pieces, a transfer moves its bytes. So it is anybody's guess
what ends up where two rows write, or where one writes and another reads.

Rows come in rising order more often than not, which one look at each tells. Others are sorted,
digit by digit: a hundred thousand take a few milliseconds.
"""

from nixl_connect._native.packing import Regions

def within(rows: Regions) -> tuple[int, int] | None:
    """Return the numbers of two rows that overlap, if any do.

    Raises
    ------
    MemoryError
        There is none to sort the rows.
    """

def between(sources: Regions, targets: Regions) -> tuple[int, int] | None:
    """Return the numbers of a source and a target that overlap, if any do.

    A source that is its own target, of the same number, does not count.

    Parameters
    ----------
    sources : Regions
        Each as long as its target. They may overlap each other.
    targets : Regions
        Of which none overlap.

    Raises
    ------
    MemoryError
        There is none to sort the rows.
    """

# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Rows of (address, length, device) and the NIXL lists that are made of them.

A `Regions` owns one C array of ``uint64[n, 3]`` and never changes after its construction, so any
thread may read it without the GIL for as long as it holds a reference.
"""

from typing import Final

from typing_extensions import Buffer

class Regions(Buffer):
    """An immutable ``uint64[n, 3]`` table: address, length in bytes, device number.

    Parameters
    ----------
    rows : sequence of (int, int, int), or buffer
        The rows, or a C-contiguous buffer of unsigned 64-bit integers of shape ``(n, 3)``.

    Raises
    ------
    ValueError
        No rows, a null address, a length of zero, a range or a total that leaves 64 bits, or a
        buffer of another shape or format.
    TypeError
        A row is not three integers.
    OverflowError
        A number is negative or leaves 64 bits.

    Notes
    -----
    Supports the buffer protocol: ``numpy.asarray(regions)`` is a read-only view.
    """

    count: Final[int]
    nbytes: Final[int]

    def __new__(cls, rows: object) -> Regions: ...
    @staticmethod
    def of_blocks(
        address: int, stride: int, length: int, device: int, count: int, indices: object
    ) -> Regions:
        """Return a row for each of some blocks, of which the first starts at `address`.

        Parameters
        ----------
        address, stride, length, device : int
            Where the blocks are: bytes from the start of one to that of the next, bytes of each.
        count : int
            How many there are.
        indices : range, or buffer
            Which of them, in order: a buffer of integers, of one dimension and in the machine's
            byte order.

        Raises
        ------
        ValueError
            None, an index that is not less than `count`, or a buffer of another shape or format.
        """

    @staticmethod
    def join(tables: list[Regions]) -> Regions:
        """Return the rows of several tables as one."""

    def indices(self, address: int, stride: int) -> bytes:
        """Return the indices that `of_blocks` made rows of: 4 bytes each, or 8 for large ones."""

    def mismatch(self, other: Regions) -> int:
        """Return the first row whose length is not that of the other table's, or -1."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> tuple[int, int, int]: ...
    def split(self, count: int) -> list[Regions]:
        """Cut the rows into `count` tables of about the same size in bytes, in order.

        There must be as many pages. Two tables with rows of the same sizes are cut alike.
        """

def coalesce(local: Regions, remote: Regions, edges: list[int]) -> tuple[Regions, Regions]:
    """Merge rows that follow each other without a gap in both of two tables.

    Parameters
    ----------
    local, remote : Regions
        As many rows, each as long as its counterpart.
    edges : list of int
        Rows that are not to be merged with the one before them, rising.

    Returns
    -------
    local, remote : Regions
        The same bytes, in the same order.
    """

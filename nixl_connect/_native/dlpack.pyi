# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Tensors that other libraries export over DLPack, read where the exporter put them.

Source of the declarations: https://dmlc.github.io/dlpack/latest/c_api.html
"""

from typing import Final

class Tensor:
    """What a DLPack capsule exports. Keeps it exported for as long as it lives.

    Parameters
    ----------
    capsule : object
        What ``__dlpack__`` returned. It is consumed.

    Raises
    ------
    ValueError
        No such capsule, one that was consumed before, or what it says makes no sense.
    BufferError
        Of a version of DLPack that is not known here.

    Notes
    -----
    The exporter's deleter runs with the GIL held, on whichever thread drops the tensor.
    """

    nbytes: Final[int]
    "Bytes of the items, without gaps."
    is_dense: Final[bool]
    "Whether the items follow each other without a gap, in C or Fortran order."

    def __new__(cls, capsule: object) -> Tensor: ...
    @property
    def address(self) -> int:
        """Of the first item."""

    @property
    def device(self) -> tuple[int, int]:
        """DLPack's number of the kind of device, and the device's number."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents, in items."""

    @property
    def strides(self) -> tuple[int, ...] | None:
        """Strides in items, or None for C order."""

    @property
    def is_readonly(self) -> bool:
        """Whether the exporter says so, which before DLPack 1.0 it could not."""

    @property
    def is_copied(self) -> bool:
        """Whether the exporter says that it made a copy."""

# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Where the bytes of an exported buffer are."""

def inspect(view: memoryview) -> tuple[int, int, bool, bool]:
    """Return the address, the size in bytes, and whether it is read-only and dense.

    The address is good for as long as `view` is neither released nor freed. Dense means that the
    bytes follow each other without a gap, in C or Fortran order.

    Raises
    ------
    ValueError
        The exporter contradicts itself, or `view` has been released.
    """

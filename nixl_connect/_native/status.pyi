# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The operation state machine: one table, one writer.

`advance` is the only function in the package that writes a status. It is safe from any thread,
with or without the GIL: a compare-and-swap either makes a legal move from the state that it saw, or
makes none.
"""

class StatusCell:
    """One status and its single writer, as the tests see them.

    Operations embed the same cell in their native record.
    """

    def __new__(cls) -> StatusCell: ...
    @property
    def value(self) -> int:
        """The current status."""

    def advance(self, to: int) -> bool:
        """Move to status `to`; return False, and change nothing, where that move is illegal."""

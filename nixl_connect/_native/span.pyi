# Made by "make stubs" from the .pyx file beside it: do not edit.
"""A region of memory: where it is, and what keeps it alive. The native part of `Descriptor`.

What an operation needs of its descriptors is read here, field by field: there may be a hundred
thousand. All of it runs under the GIL and calls no Python code, so it is one step to all others.
"""

from collections.abc import Sequence

from nixl_connect._native.packing import Regions
from nixl_connect._native.plan import Local

class Span:
    """Span(data, *, stream=None)
    --

    Where a region of memory is."""

    def __init__(self, data: object, *, stream: object | None = None) -> None: ...

def taken(
    given: object, limit: int, written: bool, used: object
) -> tuple[list[object], Local] | None:
    """Return descriptors as a list, and the memory that they are of.

    Or None where something else is among them, or something is to be said against one: more than
    `limit`, of several kinds of memory, read-only or overlapping and yet to be `written`, not
    mapped.

    Parameters
    ----------
    given : object
        A descriptor, or a list or tuple of them.
    used : weakref.ref
        Of the connection that takes them, which they note.
    """

def are_unchanged(items: Sequence[Span], rows: Regions) -> bool:
    """Whether descriptors are as long as when their rows were taken, of the same number."""

def have_streams(items: Sequence[Span]) -> bool:
    """Whether one of these descriptors has a stream to wait for."""

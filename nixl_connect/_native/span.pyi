# Made by "make stubs" from the .pyx file beside it: do not edit.
"""A region of memory: where it is, and what keeps it alive. The native part of `Descriptor`.

What an operation needs of its descriptors is read here, field by field: there may be a hundred
thousand. All of it runs under the GIL and calls no Python code, so it is one step to all others.
"""

from collections.abc import Sequence

class Span:
    """Span(data, *, stream=None)
    --

    Where a region of memory is."""

    def __init__(self, data: object, *, stream: object | None = None) -> None: ...

def have_streams(items: Sequence[Span]) -> bool:
    """Whether one of these descriptors has a stream to wait for."""

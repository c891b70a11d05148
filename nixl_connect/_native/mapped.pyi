# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Whether memory is there: asked of the kernel, which looks at its maps and not at the pages.

The interpreter's lock is kept: to give it away, and wait for it, would take longer than the calls.
"""

def is_mapped(address: int, size: int) -> bool:
    """Whether each byte has a mapping, of whatever protection.

    For files `MS_ASYNC` does nothing on Linux but look for the mappings.
    """

def is_accessible(address: int, written: bool) -> bool:
    """Whether the page of an address can be read, or written to; it is then in memory.

    False, too, where the kernel is too old to say, and for what is no ordinary memory.
    """

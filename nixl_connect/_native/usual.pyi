# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Whether a message is like most: then nothing in it has to be looked at again.

Functions that messages have as ``__post_init__``. They read public fields, under the GIL; whatever
is unusual, or wrong, is left to the `_settle` of the message, which puts it right or says so.
"""

def region(item: object) -> None:
    """Accept a descriptor of host memory within the address space."""

def message(item: object) -> None:
    """Accept metadata whose fields are of the very types that they are declared as."""

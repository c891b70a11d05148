# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Some bytes of larger memory, as an object: it ends when nobody refers to these bytes any more.

There is one type for all sizes. (Arrays of ctypes have a type for each, which is kept in a cache
and goes with the cyclic garbage collector only.)
"""

from typing_extensions import Buffer

class Block(Buffer):
    """A writable buffer of bytes within another object's. Weak references may refer to it.

    Parameters
    ----------
    memory : object
        A writable buffer, contiguous. It is exported, and so neither moves nor goes, for as long as
        the block lives.
    offset, length : int
        Which of its bytes.

    Raises
    ------
    ValueError
        There are no such bytes.
    BufferError
        `memory` is read-only or not contiguous.
    """

    def __new__(cls, memory: object, offset: int, length: int) -> Block: ...
    def __len__(self) -> int: ...

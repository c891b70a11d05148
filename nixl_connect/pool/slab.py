"""The memory of a pool: slabs, each cut into blocks of one size.

A forked child has none of it: where its parent's is, it has zeros of its own, to which it may write
and which it cannot lend. The parent's pages stay what they are, so that a device that has pinned
them goes on reading what the parent writes.
"""

from __future__ import annotations

import errno
import logging
import mmap

from nixl_connect.errors import PoolMemoryError
from nixl_connect.memory import cuda
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.memory.registrar import AbstractConnector

logger: logging.Logger = logging.getLogger(__name__)

# MADV_WIPEONFORK of Linux 4.14, which the module mmap does not name.
_WIPE_ON_FORK = 18


def map_memory(size: int) -> mmap.mmap:
    """Return new memory, which a forked child has zeros in the place of.

    The kernel does not copy such pages for a child, and so never has to move the parent's: after
    a fork, the first write to a page that is copied on write would leave a device with the old one.
    Where the kernel does not know how, the pages are shared with children for the same reason.

    Raises
    ------
    PoolMemoryError
        The system has not so much, or not in one piece.
    """
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            memory.madvise(_WIPE_ON_FORK)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            logger.warning(
                "this kernel does not keep memory from forked children (MADV_WIPEONFORK): what a "
                "child writes to the views of a pool that it inherited, its parent reads"
            )
            memory = mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, MemoryError) as error:
        raise PoolMemoryError(f"the system has no {size} bytes for the pool: {error}") from None
    return memory


class Slab:
    """Memory of one mapping, cut into blocks of one size. Goes when the last of them is gone."""

    def __init__(self, connector: AbstractConnector, size: int, block: int, *, pin: bool) -> None:
        self.block = block
        self.size = size
        self.count: int = size // block
        self.memory: mmap.mmap = map_memory(size)
        self.descriptor: Descriptor = Descriptor(self.memory)
        self.pinned: cuda.Pinned | None = (
            cuda.Pinned(self.descriptor.ptr, size, self.memory) if pin else None
        )
        self.descriptor.register_memory(connector)
        self.free: list[int] = list(range(size - block, -1, -block))
        """Offsets of the blocks that nobody has."""

    @property
    def is_unused(self) -> bool:
        """Whether all of it is free."""
        return len(self.free) == self.count

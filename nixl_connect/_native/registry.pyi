# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What is registered with one agent: shared, counted, released by the last who needs it.

Two locks, under which nothing of Python runs. `gate` is held while NIXL registers, deregisters, or
builds a request that will refer to registrations, so that none of these sees another half done;
NIXL serialises them anyway. It is waited for without the GIL. The maps have what NIXL has, and
change with the gate held alone. `lock` guards the counts, and the maps for those who look at them
without the gate; it is taken last, for as long as it takes to count.

A registration has a reference to what owns its memory, for as long as NIXL has it. So whoever
needs it may forget the memory before it is deregistered. What nobody needs any more is queued: it
is deregistered at once or, where the gate is not to be had, by the next who has it, unless it is
needed again by then.
"""

from nixl_connect._native.agent import Agent
from nixl_connect._native.packing import Regions

class RefusedError(Exception):
    """NIXL has refused to register memory: its status, and which regions, see `Registry`."""

class Registry:
    """What is registered with one agent. Safe to call from any thread.

    Parameters
    ----------
    agent : Agent
        Whose.
    report : callable
        Is told what happens to regions: what, a NIXL status, and which they are: their memory type,
        how many there are, their bytes together, and the first one's row.
    pins : bool
        Whether it may have devices that pin pages, which takes long for many.
    """

    debugging: bool

    def __new__(cls, agent: Agent, report: object, *, pins: bool = True) -> Registry: ...
    def __len__(self) -> int: ...
    @property
    def registered_bytes(self) -> int:
        """Of all regions together."""

    @property
    def is_busy(self) -> bool:
        """Whether a thread is at what takes the gate."""

    @property
    def left(self) -> int:
        """How many are to be deregistered, as soon as the gate is to be had."""

    def covers(self, regions: Regions, mem_type: int) -> bool:
        """Whether each of these regions is within a registration now."""

# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Carries completions from any thread to one event loop.

A waker is an event descriptor and a list of finished waits. Native threads add to the list without
the GIL; the loop, woken once per batch, takes the whole list. Waits are known by integer tokens, so
no Python object is ever touched from a native thread.

The loop may also have a connection's doorbell: see `listening`.
"""

class Waker:
    """The event descriptor of one event loop, and the waits that finished since it last looked."""

    def __new__(cls) -> Waker: ...
    @property
    def fd(self) -> int:
        """The descriptor, readable while there is something to take: see `Reactor.hear`."""

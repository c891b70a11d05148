# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Lets go of what ended operations held: whoever comes by does.

A wait that returns, a new operation, an event loop that was woken. What nobody lets go of within a
moment the reaper does, a Python thread that sleeps until there is work. Finalizers leave all calls
to NIXL to it.
"""

from nixl_connect._native.hold import Hold
from nixl_connect._native.reactor import Reactor
from nixl_connect._native.registry import Registry

class Collector:
    """Lets go of what the operations of one engine held. Safe to call from any thread.

    Parameters
    ----------
    reactor : Reactor
        Whose operations.
    registry : Registry
        The connection's; `add` those of lanes.
    unknown : list
        Takes holds of memory of which nobody knows whether a peer may still touch it, each after
        the monotonic time until which it is to be kept.
    quarantine : float
        For how many seconds.
    is_debugging : callable
        Whether to tell what is let go of.
    report : callable
        Is told it: the operation's number, a Reason, a Stage.
    """

    def __new__(
        cls,
        reactor: Reactor,
        registry: Registry,
        unknown: list[tuple[float, Hold]],
        quarantine: float,
        is_debugging: object,
        report: object,
    ) -> Collector: ...
    def add(self, registry: Registry) -> None:
        """Have holds refer to another registry."""

    @property
    def is_under_way(self) -> bool:
        """Whether a thread is in the middle of it, with what nobody else can see."""

    def collect(self, *, patient: bool = False) -> None:
        """Let go of what ended operations held. Cheap when there is nothing.

        Parameters
        ----------
        patient : bool
            Wait, also for NIXL, until nothing is left: for threads that may. Others leave what
            would take long to the reaper.
        """

    def poke(self) -> None:
        """Wake the thread that is in `wait`, or make its next call return at once."""

    def wait(self) -> bool:
        """Sleep until there is something to let go of or a poke; False once the reactor stopped.

        For one thread alone. It gets no signals, since it must not be the main thread.
        """

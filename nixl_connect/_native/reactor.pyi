# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The completion thread of one agent, as Python sees it."""

from nixl_connect._native.agent import Agent
from nixl_connect._native.hold import Hold
from nixl_connect._native.lane import Lane
from nixl_connect._native.operation import Operation
from nixl_connect._native.registry import Registry
from nixl_connect._native.waker import Waker

class Reactor:
    """The completion thread of one agent.

    Parameters
    ----------
    agent : Agent
        Kept alive by the reactor, as the next. Stop the reactor before closing them.
    messenger : Agent
        Tells peers when their bytes have been moved. To be closed after `agent`.
    identity : bytes
        Which agent that is: its doorbell is named so. See `identity`.
    idle_interval : float
        Seconds between looks at the network when nothing is going on; 0 for none.
    peer_silence : float
        Seconds without a word after which a mover of another host is lost; 0 for never.
    """

    def __new__(
        cls,
        agent: Agent,
        messenger: Agent,
        identity: bytes,
        idle_interval: float,
        peer_silence: float,
    ) -> Reactor: ...
    def passive(
        self, key: bytes, quarantine: float, writable: bool, hold: Hold, transfers: int
    ) -> Operation:
        """Make an operation that a notification of `key` will end; `Operation.listen` starts it.

        Parameters
        ----------
        key : bytes
            The notification key, unique in this process.
        quarantine : float
            Seconds for which the operation stays known after it was abandoned.
        writable : bool
            Whether the peer writes; else it reads.
        hold : Hold
            What it holds.
        transfers : int
            How many notifications end it: 1, more, or 0 where only its owner does.
        """

    def active(
        self,
        peer: bytes,
        identity: bytes,
        near: bool,
        key: bytes,
        told_as: bytes | None,
        reliable: float,
        quarantine: float,
        hold: Hold,
    ) -> Operation:
        """Make a transfer. `request.add_part` says of what, and `Operation.start` posts it.

        Parameters
        ----------
        peer : bytes
            What the connection's agent calls the other one.
        identity : bytes
            Which one that is.
        near : bool
            Whether it was met on this host, and has to be there still.
        key : bytes
            What to notify the peer with when the transfer is done.
        told_as : bytes or None
            What the messenger calls it, which notifies it then; the agent itself if None.
        reliable : float
            From when on, monotonic seconds, that reaches it; the agent notifies it before.
        quarantine : float
            Seconds for which to keep what NIXL fails while the peer is there.
        hold : Hold
            What it holds.
        """

    def lane(self, agent: Agent) -> Lane:
        """Start a lane on an agent of its own, to be closed after the connection's.

        Stop the lane after the reactor, and before closing its agent.
        """

    def announce(self, identity: bytes) -> None:
        """Ring a peer's doorbell: it wakes while this side prepares its transfer."""

    def is_near(self, identity: bytes) -> bool:
        """Whether an agent has its doorbell on this host."""

    def refresh(self, budget: float) -> None:
        """Have the thread look at the network, so that UCX knows which connections have broken.

        Parameters
        ----------
        budget : float
            Most seconds to wait for it.
        """

    def introduced(self) -> None:
        """Note that the messenger has begun to connect to a peer: for a while it is looked at."""

    def attach(self, registry: Registry) -> None:
        """Have the reaper deregister what nobody else does."""

    @property
    def name(self) -> bytes:
        """Name of the agent."""

    @property
    def is_copying(self) -> bool:
        """Whether a large transfer is in flight, so that calls to NIXL may take long."""

    def look(self, budget: float) -> bool:
        """Look at the transfers in flight, without the GIL, until one ends.

        Parameters
        ----------
        budget : float
            Most seconds to look.

        Returns
        -------
        bool
            Whether one has ended, and others may soon.
        """

    def hear(self, waker: Waker) -> list[int]:
        """Take what has woken an event loop, on its thread: finished waits, or the doorbell.

        Returns
        -------
        list of int
            Tokens of the waits that finished, in order.
        """

    def stop(self, drain: float, cancel: bool) -> bool:
        """Wait up to `drain` seconds for transfers in flight, and end the thread.

        Parameters
        ----------
        drain : float
            Seconds.
        cancel : bool
            Whether to end every operation first, and so wake whoever waits.

        Returns
        -------
        bool
            Whether nothing is in flight any more, nor may be, as what NIXL failed while its peer
            was there. If False, neither the agents nor the memory of those transfers may ever be
            freed.
        """

    @property
    def counters(self) -> dict[str, int]:
        """Counts of now and since the start."""

    @property
    def tallies(self) -> list[tuple[int, int, int, int, int, list[int]]]:
        """What became of operations, by kind: readable, writable, read, write, repeated.

        Each is (complete, cancelled, errored, bytes of the complete ones, nanoseconds that they
        took, how many took up to 1, 2, 4, ... microseconds; the last: how many took longer).
        """

    @property
    def quarantined_bytes(self) -> int:
        """Bytes of memory that is in quarantine."""

    @property
    def population(self) -> list[tuple[int, int, int, int]]:
        """How many operations there are: (kind, status, whether metadata was handed out, count)."""

    def operations(
        self, before: float, most: int
    ) -> list[tuple[int, int, int, int, bool, int, int, int, float, float, str]]:
        """Return the `most` oldest operations that began before a monotonic time, in order.

        Each is (id, kind, status, bytes, whether metadata was handed out, how many transfers
        complete it, how many have completed, how many failed, when it began, its deadline, the
        peer's name). One whose status is final is being drained, if it is active, or
        in quarantine until its deadline.
        """

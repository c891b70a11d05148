# Made by "make stubs" from the .pyx file beside it: do not edit.
"""One NIXL agent, safe to call from any thread.

Every native call is made without the GIL. `gate` keeps the agent alive across a call: calls hold it
shared, `close` holds it alone, so the handle cannot vanish under a call that another thread is in.
NIXL itself is created with its strict thread mode, which serialises what enters an agent.

Whether a connection stands changes when UCX makes progress, and then only. Calls that make it, and
a load that relies on a connection, hold `progress`. NIXL's own lock serialises the same calls, so
nobody waits for longer.

A forked child inherits the object but neither its threads nor a usable lock: an agent of another
generation (see `fork`) refuses every call before it touches the gate.
"""

from typing import Final

from nixl_connect._native.packing import Regions

class AgentClosedError(Exception):
    """The agent has been closed."""

class AgentForkedError(Exception):
    """The agent was made by the parent of this process, or NIXL was used there."""

class LongCall:
    """Has others know, within a ``with`` block, that NIXL is busy for long: they would wait."""

    def __new__(cls, agent: Agent) -> LongCall: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...

class Agent:
    """A NIXL agent.

    Parameters
    ----------
    name : bytes
        Name under which peers know the agent.
    called : bytes, optional
        What NIXL is to call it, if that is another name: metadata says `name` all the same.
    """

    name: Final[bytes]
    called: Final[bytes]
    handed_out: bool

    def __new__(cls, name: bytes, called: bytes | None = None) -> Agent: ...
    @property
    def is_busy(self) -> bool:
        """Whether a thread keeps NIXL busy for long, see `LongCall`."""

    def close(self) -> None:
        """Destroy the agent, once calls of other threads have left it. Idempotent."""

    def load_plugin(self, plugin: bytes) -> None:
        """Load a transport plugin that NIXL has, and the libraries that it needs; start nothing.

        NIXL never unloads it. So what has to be done to its libraries can be, before they are used.
        """

    def create_backend(self, plugin: bytes, parameters: dict[bytes, bytes]) -> None:
        """Start a transport plugin.

        Parameters
        ----------
        plugin : bytes
            Its name, such as ``b"UCX"``.
        parameters : dict of bytes to bytes
            Its options; those not given keep their defaults.
        """

    def plugins(self) -> list[str]:
        """Return the names of the transport plugins that the library found."""

    def metadata(self) -> bytes:
        """Return the agent's whole metadata: connection info and all that is registered."""

    def partial_metadata(self, regions: Regions | None, mem_type: int) -> bytes:
        """Return the metadata of some regions, each exactly as registered.

        With connection info when `regions` is None, without it otherwise: the C API offers no more.
        """

    def load_remote(self, metadata: bytes) -> bytes:
        """Load a peer's metadata and return the peer's name.

        NIXL does not validate the blob: malformed bytes crash the process. Callers parse it first.
        """

    def load_more(self, name: bytes, metadata: bytes) -> bool:
        """Load more regions of a connected peer, if the connection stands.

        NIXL has no way to ask, but refuses to send over a broken one: the peer gets a message that
        says nothing. Over a broken connection NIXL would forget the peer while UCX keeps its name,
        and the peer could not be loaded again for the life of the agent, not even after a restart.

        Returns
        -------
        bool
            False, and nothing, if the connection is known to be broken.
        """

    def invalidate_remote(self, name: bytes) -> None:
        """Disconnect a peer and forget its regions; what is in flight to it fails."""

    def hang_up(self, quiet: float) -> int:
        """Close what UCX has kept of connections that were taken down, on both sides.

        Parameters
        ----------
        quiet : float
            For how many seconds nothing may have gone over a connection, between calls of this.

        Returns
        -------
        int
            How many are left.
        """

    def reaches(self, name: bytes) -> bool:
        """Whether the connection to a peer stands, as far as UCX knows.

        NIXL has no way to ask, but refuses to send over a broken one.
        """

def keep_forever(thing: object) -> None:
    """Have something never be freed, not at the interpreter's exit either."""

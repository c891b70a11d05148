# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What a program holds of an operation, as far as it is native.

What is ordinary takes one call: it reads what the program has given, registers and starts. What is
unusual, or wrong, is left to the classes above these, which have the words for it. All of it runs
under the GIL, on the program's threads.
"""

from collections.abc import Sequence
from typing import Final

from nixl_connect._native.hold import Hold
from nixl_connect._native.operation import Operation
from nixl_connect._native.plan import Local, Plan

class Handle:
    """What is common to both sides.

    What derives from it has `_look`, which takes unusual descriptors and says what is wrong.

    Attributes
    ----------
    _connection : Connection
        Where the operation is.
    _native : Operation or None
        None until it has begun.
    _released : bool
        Whether a ``with`` block has been left.
    _timeout : float
        Seconds after which it fails; infinity for never.
    _items : list
        The descriptors as they were given.
    _descriptors : list of Span
        The same, but for blocks what they are of.
    _local : Local
        The memory.
    """

    _connection: object
    _native: Operation | None
    _released: bool
    _timeout: Final[float]
    _items: Sequence[object]
    _descriptors: Sequence[object]
    _local: Local

    def _wait(self, timeout: float | None) -> bool:
        """Block for the end of what has begun; return whether it came in time."""

class Offer(Handle):
    """The passive side.

    Attributes
    ----------
    _hold : Hold or None
        What has registered its memory; None until it has begun.
    _notification_key : str
        What a peer notifies it with.
    _transfers : int
        How many transfers complete it; 0 where only its owner does.
    _stream : bytes or None
        NIXL's metadata of its memory, as a zlib stream; None until somebody asks.
    _told, _told_in_hex : object or None
        What peers are told of it; None until somebody asks.
    """

    _transfers: Final[int]
    _hold: Hold | None
    _notification_key: str
    _stream: bytes | None
    _told: object
    _told_in_hex: object

    def _make(
        self,
        connection: object,
        given: object,
        timeout: float | None,
        written: bool,
        transfers: int,
    ) -> bool:
        """Take what a program gives, and begin if that takes no time; return whether it has begun.

        Parameters
        ----------
        connection : Connection
            Where.
        given : object
            Descriptors.
        timeout : float, optional
            Seconds after which it fails, as `seconds` returns them; by default the connector's.
        written : bool
            Whether the peer writes; else it reads.
        transfers : int
            How many transfers complete it; 0 where only its owner does.

        Raises
        ------
        RefusedError
            NIXL refuses to register the memory.
        """

    def _begin_at_once(self) -> bool:
        """Register and listen, if all is ordinary; else leave it to `_begin`. Takes no time."""

    def _text(self, hex_encode: bool) -> str | None:
        """Return the wire form of NIXL's metadata of its memory.

        None where the operation has not begun or has ended. Raises as `describe`.
        """

    def _plain(self, most: int) -> Sequence[object] | None:
        """Return what peers are told of each descriptor; None where they are blocks, or many."""

class Transfer(Handle):
    """The active side.

    What derives from it has `_checked`, which makes a plan of unusual metadata and says what is
    wrong.

    Attributes
    ----------
    _plan : Plan
        What it is about.
    """

    _plan: Final[Plan]

    def _make(
        self,
        connection: object,
        metadata: object,
        given: object,
        timeout: float | None,
        kind: int,
        start: bool,
        whole: bool,
    ) -> bool:
        """Take what a program gives, and begin if that takes no time; return whether it has begun.

        Parameters
        ----------
        connection : Connection
            Where.
        metadata : RdmaMetadata
            The peer's.
        given : object
            Descriptors.
        timeout : float, optional
            Seconds after which it fails, as `seconds` returns them; by default the connector's.
        kind : int
            NIXL's: 0 to read, 1 to write.
        start : bool
            Whether to begin.
        whole : bool
            Whether it is about all that the metadata describes.

        Raises
        ------
        RefusedError
            NIXL refuses to register the memory.
        """

    def _begin_at_once(self) -> bool:
        """Register and start, if all is ordinary; else leave it to `_begin`. Takes no time."""

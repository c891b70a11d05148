# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What one operation, or one descriptor, holds: registrations, memory, a place with a peer.

A hold ends once, whoever ends it, and a finalizer may: it gives up what it has, and makes no call
to NIXL. What nobody else holds then is deregistered by whoever comes by, see `collector`.
"""

from typing import Final

from nixl_connect._native.packing import Regions
from nixl_connect._native.peer import PeerState
from nixl_connect._native.registry import Registry

class Hold:
    """What one operation, or one descriptor, holds.

    Parameters
    ----------
    registry : Registry
        Where.
    memory : object
        What keeps its memory alive.
    nbytes : int
        Of that memory.

    Attributes
    ----------
    peer : PeerState or None
        The peer that counts it, until it ends.
    nbytes : int
    """

    nbytes: Final[int]
    peer: PeerState

    def __new__(cls, registry: Registry, memory: object | None = None, nbytes: int = 0) -> Hold: ...
    def __len__(self) -> int:
        """Return how many registrations it holds, each as often as it does."""

    def acquire(
        self,
        regions: Regions,
        mem_type: int,
        owners: list[object] | None = None,
        patient: bool = True,
    ) -> object:
        """Hold what holds each of these regions, made where there is nothing.

        Parameters
        ----------
        regions, mem_type
            What is needed.
        owners : list
            What keeps the first regions alive, or all. New registrations keep it, too: whoever
            shares one may need it for longer than whoever made it.
        patient : bool
            Whether to register what takes long, and to wait for others.

        Raises
        ------
        RefusedError
            NIXL refuses the memory; then nothing has changed.
        NotQuickError
            It takes patience, and there is none; then nothing has changed.
        """

    def cover(self, regions: Regions, mem_type: int, patient: bool = True) -> bool:
        """Hold every registration that holds one of these regions.

        Returns
        -------
        bool
            False, and nothing, if one is in none.

        Raises
        ------
        NotQuickError
            As for `acquire`.
        """

    def rows(self, first: int = 0) -> list[tuple[int, int, int]]:
        """Return what it holds, each once and exactly as registered, from the `first` on."""

    def add(self, part: Hold) -> None:
        """Have a hold end with this one."""

    def release(self, patient: bool = False) -> None:
        """End, and have deregistered what nobody holds any more: here, if NIXL is free.

        Parameters
        ----------
        patient : bool
            Wait for NIXL.
        """

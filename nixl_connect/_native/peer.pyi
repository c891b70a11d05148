# Made by "make stubs" from the .pyx file beside it: do not edit.
from typing import Final

class PeerState:
    busy: bool
    broken: bool
    generation: int
    in_flight: Final[int]

    def join(self) -> None: ...
    def enter(self, generation: int) -> bool: ...
    def leave(self) -> None: ...

# Made by "make stubs" from the .pyx file beside it: do not edit.
from typing import Final

from nixl_connect._native.agent import Agent

class Lane:
    agent: Final[Agent]

    @property
    def is_busy(self) -> bool: ...
    def stop(self, abandon: bool) -> None: ...

# Made by "make stubs" from the .pyx file beside it: do not edit.
from typing import Final

from typing_extensions import Buffer

class Regions(Buffer):
    count: Final[int]
    nbytes: Final[int]

    def __new__(cls, rows: object) -> Regions: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> tuple[int, int, int]: ...

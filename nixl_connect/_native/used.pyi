# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Which notification keys a connection has used: metadata serves one transfer."""

MARK = b".s1."
MANY = b".m"

class UsedKeys:
    """The latest keys of passive operations of this package. Safe to call from any thread.

    Keys of other forms may serve more than once: those of offers to many, whose first part ends
    with MANY, and those that other makers choose.

    Each method is one step to all other threads: it holds the GIL from its beginning to its end.
    """

    def __new__(cls) -> UsedKeys: ...
    def __len__(self) -> int: ...
    def claim(self, key: bytes) -> bool:
        """Take a key for a transfer; give it back unless that starts. False where it was used."""

    def give_back(self, key: bytes) -> object:
        """Undo `claim`."""

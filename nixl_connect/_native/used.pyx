"""Which notification keys a connection has used: metadata serves one transfer."""

cimport cython

cdef enum:
    # Keys of this package have so many hexadecimal digits, and the seal if there is one.
    DIGITS = 32
    # At least so many are remembered, and at most twice as many.
    LIMIT = 8192

# What a seal begins with.
MARK = b".s1."
# What follows the digits of a key that may serve more than once, before a seal.
MANY = b".m"


@cython.no_gc  # bytes alone
cdef class UsedKeys:
    """The latest keys of passive operations of this package. Safe to call from any thread.

    Keys of other forms may serve more than once: those of offers to many, whose first part ends
    with MANY, and those that other makers choose.

    Each method is one step to all other threads: it holds the GIL from its beginning to its end.
    """

    def __cinit__(self):
        self.latest = set()
        self.older = set()

    def __len__(self) -> int:
        return len(self.latest) + len(self.older)

    cpdef bint claim(self, bytes key) except -1:
        """Take a key for a transfer; give it back unless that starts. False where it was used."""
        if len(key) != DIGITS and key[DIGITS:DIGITS + len(<bytes>MARK)] != MARK:
            return True
        if key in self.latest or key in self.older:
            return False
        if len(self.latest) >= LIMIT:
            self.older = self.latest
            self.latest = set()
        self.latest.add(key)
        return True

    cpdef object give_back(self, bytes key):
        """Undo `claim`."""
        self.latest.discard(key)
        self.older.discard(key)

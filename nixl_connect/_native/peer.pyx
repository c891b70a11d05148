"""A connection to a remote agent: who it is, whether it may be used, and who is in flight.

Each method is one step to all other threads: it holds the GIL from its beginning to its end. So the
fields that more than one thread changes are changed through methods alone.
"""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.string cimport memcmp

from nixl_connect._native.bell cimport address_of
from nixl_connect._native.named cimport Named, Region
from nixl_connect._native.posix cimport now_ns

from nixl_connect._native.envelope import Envelope


cdef enum:
    # So much metadata, in short texts, is known to be loaded without a look at it.
    MOST_LOADED = 1024
    SHORT = 4096


# Where nothing was exchanged for so long (seconds), the connection is looked at before it is used.
cdef double QUIET = 0.05


cdef double _now() noexcept nogil:
    return now_ns() / 1e9


cdef class PeerState:
    """What an ordinary transfer needs to know of a connection to a peer.

    Parameters
    ----------
    alias : bytes
        What NIXL calls it here.
    identity : bytes
        Which agent it is, see `identity`.

    Attributes
    ----------
    itself : bool
        Whether it is the agent itself, with which there is no connection.
    here : bool
        Whether it is an agent of this process.
    near : bool
        Whether it had its doorbell on this host when it was connected: as long as that is there, it
        is who it was.
    busy : bool
        A thread, the one that sets this, is making it or loading more over it; others wait.
    broken : bool
        It is known to be lost, or has been given up: another is to be made. For good.
    in_flight : int
        Transfers that were let in and have not left.
    last_used : float
        When the last one left, or it was made: seconds of the monotonic clock.
    told_as : bytes or None
        What the messenger calls it, if that knows it.
    connections : dict of str to bytes
        Its connection info, once it is connected.
    everywhere : dict of (str, int, int) to bytes
        By backend, memory type and device, the keys that are for all memory, see `ledger`.
    reliable : float
        From when on that may be relied on, by the same clock.
    lanes_failed : int
        How often lanes could not transfer with it, which the connection then did.
    """

    def __cinit__(self, bytes alias not None, bytes identity not None, *others: object):
        self.alias = alias
        self.identity = identity
        self.bell = address_of(identity)
        self.last_used = _now()
        self._loaded = set()
        self.connections = {}
        self.everywhere = {}

    @property
    def loaded(self) -> set[bytes]:
        """Metadata all of which is known to be loaded; not all such metadata."""
        return self._loaded

    def note_loaded(self, bytes blob not None) -> None:
        """Note that all of some metadata has been loaded, which stays so."""
        if len(blob) <= SHORT:
            if len(self._loaded) >= MOST_LOADED:
                self._loaded = set()
            self._loaded.add(blob)

    cdef bint is_ready(self):
        """Whether it stands, as far as is known of one that was used just now."""
        return (
            not self._busy and not self.broken
            and (self.in_flight > 0 or _now() <= self.last_used + QUIET)
        )

    cdef bint knows(self, bytes blob, object described) except -1:
        """Whether all of some metadata has been loaded."""
        if self._has_keys_of(described) or blob in self._loaded:
            return True
        if len(blob) > SHORT or not self.has_loaded(described):
            return False
        self.note_loaded(blob)
        return True

    cdef bint _has_keys_of(self, object described) except -1:
        """Whether metadata is of this agent, and has no keys but those that are for all memory."""
        cdef dict connections
        cdef list sections
        if not self.everywhere:
            return False
        _, connections, sections, _ = described
        for backend, info in connections.items():
            if self.connections.get(backend) != info:
                return False
        for backend, mem_type, regions in sections:
            if not isinstance(regions, Named) or not self._has_keys(backend, mem_type, regions):
                return False
        return True

    cdef bint _has_keys(self, object backend, object mem_type, Named regions) except -1:
        cdef const char* text = regions.text
        cdef const Region* region
        cdef const Region* last = NULL
        cdef bytes key = None
        cdef Py_ssize_t i
        for i in range(regions.count):
            region = &regions.regions[i]
            if last is NULL or region.device != last.device:
                key = self.everywhere.get((backend, mem_type, region.device))
                last = region
            if key is None or region.key_size != len(key) or memcmp(
                text + region.key, <const char*>key, region.key_size
            ):
                return False
        return True

    def has_loaded(self, envelope: Envelope) -> bool:
        """Whether all that some metadata, parsed, describes has been loaded: by a look at it."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        return self._busy

    @busy.setter
    def busy(self, bint busy):
        self._busy = busy
        self._thread = PyThread_get_thread_ident()

    @property
    def is_busy_here(self) -> bool:
        """Whether this thread made it busy: it is a signal handler's, or a finalizer's, now."""
        return self._busy and self._thread == PyThread_get_thread_ident()

    def join(self, hold: object = None) -> None:
        """Count a transfer in, and note in `hold`, if there is one, that it is to leave."""
        if hold is not None:
            hold.peer = self
        self.in_flight += 1

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has been exchanged for a while."""
        return self.in_flight == 0 and not self.itself and _now() > self.last_used + QUIET

    def enter(self) -> bool:
        """Count a transfer in, if the connection stands and nothing is being loaded."""
        if self._busy or self.broken:
            return False
        self.in_flight += 1
        return True

    def claim(self) -> bool:
        """Make it busy, if it is not and nothing is in flight."""
        if self._busy or self.in_flight:
            return False
        self.busy = True
        return True

    def leave(self, hold: object = None) -> None:
        """Count a transfer out: of `hold`, if there is one, and not twice."""
        if hold is not None:
            if hold.peer is not self:
                return
            hold.peer = None
        self.count_out()

    cdef void count_out(self) noexcept:
        self.last_used = _now()
        self.in_flight -= 1

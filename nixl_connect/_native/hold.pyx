"""What one operation, or one descriptor, holds: registrations, memory, a place with a peer.

A hold ends once, whoever ends it, and a finalizer may: it gives up what it has, and makes no call
to NIXL. What nobody else holds then is deregistered by whoever comes by, see `collector`.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, Py_XINCREF, PyObject
from libc.stdint cimport int64_t
from libc.string cimport memset

from nixl_connect._native.atomic cimport count_add
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.record cimport REASON_NOT_TOLD, REASON_PEER_LOST, REASON_TRANSFER
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.peer cimport PeerState
from nixl_connect._native.registration cimport Registration, Told, free_held, let_go, own
from nixl_connect._native.registry cimport BRIEF, NO_MEMORY, STRETCH, Registry

from nixl_connect._native.agent import AgentForkedError
from nixl_connect._native.lock import NotQuickError


# A cycle through its memory can be seen; but it is not to lose its parts before it has ended.
@cython.no_gc_clear
cdef class Hold:
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

    def __cinit__(self, Registry registry not None, memory: object = None, uint64_t nbytes=0):
        self.registry = registry
        self.memory = memory
        self.nbytes = nbytes
        self.generation = registry.generation  # it is of no use in another

    def __dealloc__(self):
        if self.registry is not None:
            self.end()
            if self.registry.agent.handle is NULL:
                self.registry.clean(0)  # closed: that makes no call to NIXL
            self.registry.call()

    def __len__(self) -> int:
        """Return how many registrations it holds, each as often as it does."""
        return 0 if self.is_quarantined else self.held.count

    cpdef object acquire(
        self, Regions regions, int mem_type, list owners=None, bint patient=True
    ):
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
        cdef Registry registry = self.registry
        cdef Registration* made = NULL
        cdef Registration* over = NULL
        cdef Told told, gone, kept
        cdef bint entered = False
        cdef int rc = 0
        if registry.generation != fork_generation():
            raise AgentForkedError
        while True:
            memset(&told, 0, sizeof(Told))
            memset(&gone, 0, sizeof(Told))
            memset(&kept, 0, sizeof(Told))
            with nogil:
                entered = registry.enter(STRETCH if patient else BRIEF)
                if entered:
                    over = registry.tidy(&gone, &kept)
                    rc = registry.take(regions, mem_type, &self.held, patient, &made, &told)
                    registry.leave()
            if entered:
                break
            if not patient:
                raise NotQuickError
            PyErr_CheckSignals()
        own(made, owners)
        let_go(over)
        registry.say(&gone, &kept)
        if rc:
            registry.fail(rc, &told)
        registry.say_made(&told)

    def cover(self, Regions regions not None, int mem_type, bint patient=True) -> bool:
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
        cdef Registry registry = self.registry
        cdef bint entered = False
        cdef int rc = 0
        if registry.generation != fork_generation():
            raise AgentForkedError
        while not entered:
            with nogil:
                entered = registry.enter(STRETCH if patient else BRIEF)
                if entered:
                    rc = registry.cover(regions, mem_type, &self.held)
                    registry.leave()
            if not entered:
                if not patient:
                    raise NotQuickError
                PyErr_CheckSignals()
        if rc == NO_MEMORY:
            raise MemoryError
        return rc == 0

    cdef Registration* only(self) noexcept:
        """Return the registration that it holds, if it is one alone."""
        cdef Py_ssize_t i
        if self.is_quarantined or self.held.count == 0:
            return NULL
        for i in range(1, self.held.count):
            if self.held.items[i] != self.held.items[0]:
                return NULL
        return self.held.items[0]

    def rows(self, Py_ssize_t first=0) -> list[tuple[int, int, int]]:
        """Return what it holds, each once and exactly as registered, from the `first` on."""
        cdef Py_ssize_t i
        if self.is_quarantined or self.held.count <= first:
            return []
        # Nobody frees a registration that this holds; and it ends with the GIL held.
        found = {}
        for i in range(first, self.held.count):
            row = self.held.items[i].row
            found[row[0], row[1], row[2]] = None
        return list(found)

    def add(self, Hold part not None) -> None:
        """Have a hold end with this one."""
        if self.parts is None:
            self.parts = []
        self.parts.append(part)

    cdef void quarantine(self) noexcept:
        """Give up all but the memory, that of registrations included."""
        cdef Py_ssize_t i
        if self.is_quarantined or self.generation != fork_generation():
            return
        for i in range(self.held.count):
            Py_XINCREF(self.held.items[i].owner)
        self.is_quarantined = True
        self.registry.give_up(&self.held, True)
        self._leave()

    cdef void _leave(self) noexcept:
        cdef PeerState peer = self.peer
        self.peer = None
        if peer is not None:
            peer.count_out()

    cdef void end(self) noexcept:
        """Give up all. What is to be deregistered then is left to others."""
        cdef Py_ssize_t i
        cdef Hold part
        cdef Held owners
        if self.registry is None or self.generation != fork_generation():
            return  # a copy, of what the parent's threads may be changing
        memset(&owners, 0, sizeof(Held))
        if self.is_quarantined:
            owners = self.held
            if self.held.items == self.held.few:
                owners.items = owners.few
            self.is_quarantined = False
            memset(&self.held, 0, sizeof(Held))
        else:
            self.registry.give_up(&self.held, False)
            free_held(&self.held)
        self._leave()
        parts = self.parts
        self.parts = None
        if parts is not None:
            for part in parts:
                part.end()
        # Last: memory may have finalizers, which find this ended.
        self.memory = None
        for i in range(owners.count):
            Py_XDECREF(<PyObject*>owners.items[i])
        free_held(&owners)

    def release(self, bint patient=False) -> None:
        """End, and have deregistered what nobody holds any more: here, if NIXL is free.

        Parameters
        ----------
        patient : bool
            Wait for NIXL.
        """
        self.end()
        while not self.registry.clean(STRETCH if patient else BRIEF) and patient:
            PyErr_CheckSignals()
        self.registry.call()


# The hold of an operation belongs to its record, from when that is made until somebody ends it.


cdef void entrust(Core* core, Record* record, Hold hold) noexcept:
    """Have a record hold something."""
    Py_INCREF(hold)
    record.hold = <void*>hold
    count_add(&core.held, 1)
    count_add(&core.held_bytes, <int64_t>hold.nbytes)


cdef Hold taken_back(Core* core, Record* record):
    """Return what a record holds, or None; the record does not any more."""
    cdef Hold hold
    if record.hold is NULL:
        return None
    hold = <Hold>record.hold
    record.hold = NULL
    Py_DECREF(hold)  # the record's
    count_add(&core.held, -1)
    count_add(&core.held_bytes, -<int64_t>hold.nbytes)
    return hold


cdef void end_of(Core* core, Record* record) noexcept:
    """End what the record of an operation that has ended holds, as far as its stage allows.

    Where NIXL may have dropped the peer, it is to be connected anew.
    """
    cdef Hold hold = taken_back(core, record)
    cdef Hold part
    if hold is None:
        return
    if hold.peer is not None and record.reason in (REASON_PEER_LOST, REASON_NOT_TOLD):
        hold.peer.broken = True
    if hold.parts is not None and record.reason in (REASON_PEER_LOST, REASON_TRANSFER):
        for part in hold.parts:
            if part.peer is not None:
                part.peer.broken = True
    hold.end()

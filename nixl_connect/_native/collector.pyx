"""Lets go of what ended operations held: whoever comes by does.

A wait that returns, a new operation, an event loop that was woken. What nobody lets go of within a
moment the reaper does, a Python thread that sleeps until there is work. Finalizers leave all calls
to NIXL to it.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals

from nixl_connect._native.atomic cimport peek_count, peek_list
from nixl_connect._native.core cimport Core, poke
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.hold cimport Hold, end_of, taken_back
from nixl_connect._native.posix cimport (
    now_ns,
    pthread_cond_wait,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from nixl_connect._native.reactor cimport Reactor
from nixl_connect._native.record cimport (
    STAGE_QUARANTINED,
    STAGE_UNKNOWN,
    Record,
    release_record,
)
from nixl_connect._native.registry cimport STRETCH, Registry

cdef enum:
    # So many operations are let go of at a stretch, which takes less than a millisecond.
    MOST = 128


cdef bint _has_ended(Core* core) noexcept nogil:
    """Whether there is an operation to let go of, as a hint."""
    return (
        peek_list(<void**>&core.retired) is not NULL
        or peek_list(<void**>&core.quarantined) is not NULL
    )


@cython.no_gc  # it refers downwards only
cdef class Collector:
    """Lets go of what the operations of one engine held. Safe to call from any thread.

    Parameters
    ----------
    reactor : Reactor
        Whose operations.
    registry : Registry
        The connection's; `add` those of lanes.
    unknown : list
        Takes holds of memory of which nobody knows whether a peer may still touch it, each after
        the monotonic time until which it is to be kept.
    quarantine : float
        For how many seconds.
    is_debugging : callable
        Whether to tell what is let go of.
    report : callable
        Is told it: the operation's number, a Reason, a Stage.
    """

    def __cinit__(
        self, Reactor reactor not None, Registry registry not None, list unknown not None,
        double quarantine, is_debugging: object, report: object
    ):
        self.reactor = reactor
        self.registries = [registry]
        self.unknown = unknown
        self.quarantine = quarantine
        self.is_debugging = is_debugging
        self.report = report

    def add(self, Registry registry not None) -> None:
        """Have holds refer to another registry."""
        self.registries = [*self.registries, registry]

    @property
    def is_under_way(self) -> bool:
        """Whether a thread is in the middle of it, with what nobody else can see."""
        return self.under_way > 0

    cdef bint _is_needed(self) noexcept:
        """Whether there is something to let go of."""
        cdef Registry registry
        if _has_ended(self.reactor.core):
            return True
        for registry in self.registries:
            if peek_count(&registry.idle_count):
                return True
        return False

    cdef bint _would_wait(self) noexcept:
        """Whether another thread is in a call to NIXL that may take long."""
        cdef Registry registry
        if peek_count(&self.reactor.core.large_count):
            return True
        for registry in self.registries:
            if registry.agent.keeps_busy():
                return True
        return False

    def collect(self, *, bint patient=False) -> None:
        """Let go of what ended operations held. Cheap when there is nothing.

        Parameters
        ----------
        patient : bool
            Wait, also for NIXL, until nothing is left: for threads that may. Others leave what
            would take long to the reaper.
        """
        self.run(patient)

    cdef int run(self, bint patient) except -1:
        """Do it: see `collect`."""
        cdef Core* core = self.reactor.core
        cdef Registry registry
        cdef Record* retired
        cdef Record* quarantined
        cdef Record* last
        cdef Record* rest
        cdef Py_ssize_t left
        cdef bint busy
        cdef list told
        while self.reactor.generation == fork_generation() and self._is_needed():
            told = [] if self.is_debugging() else None
            for registry in self.registries:
                registry.debugging = told is not None
            self.under_way += 1
            pthread_mutex_lock(&core.lock)
            quarantined = core.quarantined
            core.quarantined = NULL
            retired = last = core.retired
            left = MOST
            while last is not NULL and left > 1:
                last = last.next
                left -= 1
            core.retired = NULL
            if last is not NULL:
                core.retired = last.next
                last.next = NULL
            pthread_mutex_unlock(&core.lock)
            try:
                while quarantined is not NULL:
                    rest = quarantined.next_quarantined
                    if told is not None:
                        told.append((quarantined.id, quarantined.reason, STAGE_QUARANTINED))
                    if quarantined.hold is not NULL:
                        (<Hold>quarantined.hold).quarantine()
                    release_record(quarantined)
                    quarantined = rest
                while retired is not NULL:
                    rest = retired.next
                    if told is not None:
                        told.append((retired.id, retired.reason, retired.stage))
                    if retired.stage == STAGE_UNKNOWN and retired.hold is not NULL:
                        end = now_ns() / 1e9 + self.quarantine
                        self.unknown.append((end, <Hold>retired.hold))
                        taken_back(core, retired).quarantine()
                    else:
                        end_of(core, retired)
                    release_record(retired)
                    retired = rest
            except MemoryError:
                self._put_back(retired, quarantined)
                raise
            finally:
                self.under_way -= 1
            try:
                busy = not patient and self._would_wait()
                for registry in self.registries:
                    while not busy and not registry.clean(STRETCH if patient else 0) and patient:
                        PyErr_CheckSignals()
            finally:
                if self._is_needed():
                    poke(core)  # if nobody comes by, it is for the reaper
            # Last: what a filter raises comes when all is done.
            if told is not None:
                for each in told:
                    self.report(*each)
            if not patient:
                break
        return 0

    cdef void _put_back(self, void* ended, void* begun) noexcept:
        """Leave to the next call what there was no memory for."""
        cdef Core* core = self.reactor.core
        cdef Record* retired = <Record*>ended
        cdef Record* quarantined = <Record*>begun
        cdef Record* rest
        pthread_mutex_lock(&core.lock)
        while quarantined is not NULL:
            rest = quarantined.next_quarantined
            quarantined.next_quarantined = core.quarantined
            core.quarantined = quarantined
            quarantined = rest
        while retired is not NULL:
            rest = retired.next
            retired.next = core.retired
            core.retired = retired
            retired = rest
        pthread_mutex_unlock(&core.lock)

    def poke(self) -> None:
        """Wake the thread that is in `wait`, or make its next call return at once."""
        if self.reactor.generation == fork_generation():
            poke(self.reactor.core)

    def wait(self) -> bool:
        """Sleep until there is something to let go of or a poke; False once the reactor stopped.

        For one thread alone. It gets no signals, since it must not be the main thread.
        """
        cdef Core* core = self.reactor.core
        cdef bint alive
        with nogil:
            pthread_mutex_lock(&core.lock)
            while not (
                core.poked or core.stopped or core.retired is not NULL
                or core.quarantined is not NULL
            ):
                core.reaper_asleep = True
                pthread_cond_wait(&core.garbage, &core.lock)
            core.reaper_asleep = False
            core.poked = False
            alive = not core.stopped
            pthread_mutex_unlock(&core.lock)
        return alive

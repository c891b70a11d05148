"""One operation, as Python holds it.

Dropping an operation cancels it: its deallocation marks the record and leaves every call into NIXL
to the completion thread, so a finalizer may run on any thread at any point.

In a forked child the inherited objects are copies without a thread, and a lock that the parent's
threads held stays locked for ever: they refuse work, and when deallocated leave the record alone.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from nixl_connect._native.atomic cimport peek_int, peek_time
from nixl_connect._native.core cimport (
    Core,
    await_end,
    finish_passive,
    forget_wait,
    poke,
    retain_passive,
    take_bell,
)
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.hold cimport Hold, end_of, taken_back
from nixl_connect._native.nap cimport heed
from nixl_connect._native.posix cimport (
    getpid,
    gettid,
    now_ns,
    pthread_cond_timedwait,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    relax,
    timespec,
    usleep,
)
from nixl_connect._native.record cimport (
    REASON_CLOSED,
    REASON_LOCAL,
    REASON_MOVER_LOST,
    REASON_MOVER_SILENT,
    REASON_NONE,
    REASON_NOT_TOLD,
    REASON_PEER_CANCELLED,
    REASON_PEER_FAILED,
    REASON_PEER_LOST,
    REASON_TIMEOUT,
    REASON_TRANSFER,
    STAGE_CLEAN,
    STAGE_QUARANTINED,
    STAGE_UNKNOWN,
    Record,
    live_records,
    release_record,
)
from nixl_connect._native.status cimport CANCELLED, advance, is_final, read_status
from nixl_connect._native.transfer cimport LOOK, cancel, look, release_requests, start_active
from nixl_connect._native.waker cimport Waiter, Waker, free_waiter, new_waiter

from enum import IntEnum

from nixl_connect._native.agent import AgentForkedError

# Blocking waits return to the interpreter this often (nanoseconds), so that signals are seen.
cdef enum:
    SIGNAL_INTERVAL = 50_000_000
    # How long to stay awake where a peer has said that something comes.
    GLANCE = 50_000


class Reason(IntEnum):
    """Why an operation ended; see record.pxd."""

    NONE = REASON_NONE
    LOCAL = REASON_LOCAL
    CLOSED = REASON_CLOSED
    TIMEOUT = REASON_TIMEOUT
    TRANSFER = REASON_TRANSFER
    PEER_LOST = REASON_PEER_LOST
    NOT_TOLD = REASON_NOT_TOLD
    PEER_CANCELLED = REASON_PEER_CANCELLED
    PEER_FAILED = REASON_PEER_FAILED
    MOVER_LOST = REASON_MOVER_LOST
    MOVER_SILENT = REASON_MOVER_SILENT


class Stage(IntEnum):
    """What is known of the memory of an operation that ended; see record.pxd."""

    QUARANTINED = STAGE_QUARANTINED
    CLEAN = STAGE_CLEAN
    UNKNOWN = STAGE_UNKNOWN


def live() -> int:
    """Return how many native records there are in the process: for tests of leaks."""
    return live_records()


cdef bint _has_ended(const Record* record) noexcept nogil:
    return is_final(read_status(&record.status))


cdef bint _glance(Core* core, Record* record, int64_t until) noexcept nogil:
    """Look for the end for a moment, where a peer has rung and the thread looks for what comes.

    That is sooner there than this thread would be asleep and woken. Returns whether it has come.
    """
    cdef unsigned int turns = 0
    cdef int64_t now = now_ns()
    pthread_mutex_lock(&core.lock)
    heed(core)
    pthread_mutex_unlock(&core.lock)
    until = min(until, now + GLANCE)
    while not _has_ended(record) and now < min(until, peek_time(&core.rung_until)):
        relax(&turns)
        now = now_ns()
    return _has_ended(record)


cdef int _wait(Core* core, Record* record, int64_t until) except -1 nogil:
    """Sleep until the end, or until the monotonic time `until`; return whether it has come."""
    cdef bint ok
    cdef bint leaving
    cdef int64_t end
    cdef timespec t
    while True:
        end = min(until, now_ns() + SIGNAL_INTERVAL)
        t.tv_sec = end // 1000000000
        t.tv_nsec = end % 1000000000
        pthread_mutex_lock(&core.lock)
        ok = _has_ended(record)
        if not ok:
            take_bell(core)
        core.sleepers += 1
        while not ok and now_ns() < end:
            pthread_cond_timedwait(&core.ended, &core.lock, &t)
            ok = _has_ended(record)
        core.sleepers -= 1
        leaving = core.stopping and not core.cancelling
        pthread_mutex_unlock(&core.lock)
        if leaving and gettid() != getpid():
            # The interpreter ends, and a daemon thread must not ask for its lock once it is gone.
            until = INT64_MAX
            usleep(SIGNAL_INTERVAL // 1000)
            continue
        if ok or end == until:
            return ok
        with gil:
            PyErr_CheckSignals()


cdef void _look_out(Core* core, Record* record, int64_t until) noexcept nogil:
    while not _has_ended(record) and look(core, until) and now_ns() < until:
        pass


cdef bint _is_small(Record* record) noexcept nogil:
    """Whether it is a transfer that `look` may see end within microseconds."""
    return (
        record.is_active and peek_int(&record.posted) and not record.large
        and record.parts[0].lane is NULL
    )


cdef int64_t deadline_of(timeout) except -1:
    """Convert a timeout in seconds, or None, to monotonic nanoseconds."""
    if timeout is None or timeout > 9e9:
        return INT64_MAX
    return now_ns() + <int64_t>(max(timeout, 0) * 1e9)


# Without garbage collection: it refers downwards only, and a cycle that holds it must not clear its
# reactor before its deallocation has used it.
@cython.no_gc
cdef class Operation:
    """The handle of one operation. Made by `Reactor.passive` and `Reactor.active`."""

    def __dealloc__(self):
        if self.record is NULL or self.generation != fork_generation():
            return
        if self.is_started:
            cancel(self.core, self.record, REASON_LOCAL)
        else:
            # Never handed over, so this thread owns the request, and nothing is in flight.
            with nogil:
                self._discard()
            taken_back(self.core, self.record)  # it ends here, after the request
        release_record(self.record)

    cdef void _discard(self) noexcept nogil:
        # The lanes' agents are closed after this one.
        if self.record.is_active and self.agent.enter() == 0:
            release_requests(self.core, self.record)
            self.agent.leave()

    cpdef object discard(self):
        """End an operation that was never started, with what it holds; nothing is in flight."""
        cdef Hold hold
        if self.is_started:
            raise RuntimeError("the operation has been started")
        with nogil:
            self._discard()
        hold = taken_back(self.core, self.record)
        if hold is not None:
            hold.end()

    @property
    def hold(self) -> Hold | None:
        """What it holds, until that has been let go of."""
        return None if self.record.hold is NULL else <Hold>self.record.hold

    @property
    def id(self) -> int:
        """Number of the operation in its reactor, from 1."""
        return self.record.id

    @property
    def status(self) -> int:
        """Its OperationStatus. One atomic read."""
        return read_status(&self.record.status)

    @property
    def has_ended(self) -> bool:
        """Whether its status is final."""
        return is_final(read_status(&self.record.status))

    @property
    def reason(self) -> int:
        """Why it ended, a Reason."""
        return self.record.reason

    @property
    def error(self) -> int:
        """NIXL's status where the transfer failed, else 0."""
        return self.record.error

    cpdef bint listen(self, timeout: object) except -1:
        """Start to wait for the key. False when the reactor is stopping."""
        self.record.deadline = deadline_of(timeout)
        self.is_started = retain_passive(self.core, self.record)
        return self.is_started

    @property
    def is_small(self) -> bool:
        """Whether it is a transfer that `Reactor.look` may see end within microseconds."""
        return _is_small(self.record)

    cpdef object start(self, timeout: object, bint inline_post, bint large):
        """Start the transfer, on this thread or on the reactor's.

        Where it ends meanwhile, so does what it holds.

        Parameters
        ----------
        timeout : float or None
            Seconds from now to its deadline.
        inline_post : bool
            Whether to post it on this thread. Lanes have threads of their own.
        large : bool
            Whether NIXL may take milliseconds for it at a stretch.
        """
        cdef bint ended = True
        cdef int rc
        self.record.deadline = deadline_of(timeout)
        if self.record.part_count == 0:
            raise RuntimeError("the operation has no parts")
        if self.record.parts[0].lane is not NULL:
            inline_post, large = True, False
        self.record.large = large
        with nogil:
            # The agent stays open until a post on this thread is over.
            rc = self.agent.enter()
            if rc == 0:
                ended = start_active(self.core, self.record, inline_post)
                self.agent.leave()
        if rc == 0:
            self.is_started = True
            if ended:
                end_of(self.core, self.record)
        else:
            self.record.reason = REASON_CLOSED
            advance(&self.record.status, CANCELLED)

    def expose(self) -> bool:
        """Note that a peer will know the memory: from here on its end is followed by a quarantine.

        Returns
        -------
        bool
            False, and nothing, if the operation has ended.
        """
        if self.generation != fork_generation():
            raise AgentForkedError
        pthread_mutex_lock(&self.core.lock)
        cdef bint ended = is_final(read_status(&self.record.status))
        if not ended:
            self.record.exposed = True
        pthread_mutex_unlock(&self.core.lock)
        return not ended

    def cancel(self) -> bool:
        """Cancel, unless it has ended; return whether this call did."""
        if self.generation != fork_generation():
            raise AgentForkedError
        return cancel(self.core, self.record, REASON_LOCAL)

    def keep(self) -> None:
        """Have the reaper woken at its end, or now if that has come."""
        if self.generation != fork_generation():
            raise AgentForkedError
        pthread_mutex_lock(&self.core.lock)
        self.record.kept = True
        cdef bint ended = _has_ended(self.record)
        pthread_mutex_unlock(&self.core.lock)
        if ended:
            poke(self.core)

    def finish(self) -> bool:
        """End a passive operation as complete, unless it has ended; return whether this call did.

        Peers that know its memory may still touch it.
        """
        if self.generation != fork_generation():
            raise AgentForkedError
        return finish_passive(self.core, self.record)

    @property
    def transfers(self) -> tuple[int, int]:
        """How many transfers with its memory have completed, and how many not, where it counts."""
        cdef uint64_t done
        cdef uint64_t failed
        if self.generation != fork_generation():
            raise AgentForkedError
        pthread_mutex_lock(&self.core.lock)
        done, failed = self.record.done, self.record.failed
        pthread_mutex_unlock(&self.core.lock)
        return done, failed

    def glance(self, double budget) -> bool:
        """Return whether it has ended, after a moment where that says something: see `wait`.

        Parameters
        ----------
        budget : float
            Most seconds to look at a small transfer.
        """
        cdef int64_t now = now_ns()
        cdef bint ended = _has_ended(self.record)
        if self.generation != fork_generation():
            raise AgentForkedError
        if ended or (self.record.is_active and not _is_small(self.record)):
            return ended
        with nogil:
            if not self.record.is_active:
                _glance(self.core, self.record, INT64_MAX)
            elif self.agent.enter() == 0:
                _look_out(self.core, self.record, now + <int64_t>(budget * 1e9))
                self.agent.leave()
        return _has_ended(self.record)

    def attach(self, Waker waker not None, uint64_t token) -> bool:
        """Have `waker` woken with `token` at the end. False, and nothing, if that has come."""
        cdef Waiter* waiter
        if self.generation != fork_generation():
            raise AgentForkedError
        if _has_ended(self.record):
            return False
        waiter = new_waiter(waker.state, token)
        if waiter is NULL:
            raise MemoryError
        pthread_mutex_lock(&self.core.lock)
        cdef bint ended = _has_ended(self.record)
        if not ended:
            await_end(self.core, self.record, waiter)
        pthread_mutex_unlock(&self.core.lock)
        if ended:
            free_waiter(waiter)
        return not ended

    def detach(self, uint64_t token) -> None:
        """Undo `attach`, if the end has not come between."""
        cdef Waiter* waiter
        if self.generation != fork_generation():
            return
        pthread_mutex_lock(&self.core.lock)
        waiter = forget_wait(self.core, self.record, token)
        pthread_mutex_unlock(&self.core.lock)
        if waiter is not NULL:
            free_waiter(waiter)

    def wait(self, timeout: float | None) -> bool:
        """Block, without the GIL, for the end; return whether it came within `timeout` seconds."""
        cdef int64_t until = deadline_of(timeout)
        cdef bint ended
        if self.generation != fork_generation():
            raise AgentForkedError
        with nogil:
            if (
                self.record.is_active and peek_int(&self.record.posted)
                and self.record.parts[0].lane is NULL and self.agent.enter() == 0
            ):
                _look_out(self.core, self.record, min(until, now_ns() + LOOK))
                self.agent.leave()
            elif not self.record.is_active:
                _glance(self.core, self.record, until)
            ended = _wait(self.core, self.record, until)
        return ended

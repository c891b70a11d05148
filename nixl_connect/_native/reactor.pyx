"""The completion thread of one agent, as Python sees it."""

cimport cython
from libc.errno cimport ENOMEM, errno
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport strdup

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.atomic cimport peek_count
from nixl_connect._native.bell cimport Address, address_of
from nixl_connect._native.capi cimport check
from nixl_connect._native.census cimport (
    READABLE,
    WRITABLE,
    Census,
    operations_of,
    population_of,
    tallies_of,
)
from nixl_connect._native.core cimport Core, is_there, rouse
from nixl_connect._native.operation cimport Operation, deadline_of
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.hold cimport Hold, entrust
from nixl_connect._native.lane cimport Lane
from nixl_connect._native.listening cimport answer
from nixl_connect._native.posix cimport (
    now_ns,
    pthread_cond_timedwait,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    timespec,
)
from nixl_connect._native.record cimport Record, new_record
from nixl_connect._native.registry cimport Registry
from nixl_connect._native.status cimport INITIALIZED, advance
from nixl_connect._native.thread cimport free_core, new_core, stop_core
from nixl_connect._native.transfer cimport announce, look
from nixl_connect._native.waker cimport Waker, was_called

from nixl_connect._native.agent import AgentForkedError


cdef enum:
    # How long (nanoseconds) connecting to a peer may take.
    INTRODUCTION = 1_000_000_000


cdef bint _is_over(Core* core) noexcept nogil:
    """Whether nothing is in flight, nor may be."""
    cdef bint over
    pthread_mutex_lock(&core.lock)
    over = core.active_count == 0 and core.lingering is NULL
    pthread_mutex_unlock(&core.lock)
    return over


@cython.no_gc  # it refers downwards only; see Operation
cdef class Reactor:
    """The completion thread of one agent.

    Parameters
    ----------
    agent : Agent
        Kept alive by the reactor, as the next. Stop the reactor before closing them.
    messenger : Agent
        Tells peers when their bytes have been moved. To be closed after `agent`.
    identity : bytes
        Which agent that is: its doorbell is named so. See `identity`.
    idle_interval : float
        Seconds between looks at the network when nothing is going on; 0 for none.
    peer_silence : float
        Seconds without a word after which a mover of another host is lost; 0 for never.
    """

    def __cinit__(
        self, Agent agent not None, Agent messenger not None, bytes identity not None,
        double idle_interval, double peer_silence
    ):
        self.agent = agent
        self.messenger = messenger
        self.generation = fork_generation()
        cdef int64_t interval = <int64_t>(idle_interval * 1e9)
        cdef int64_t silence = <int64_t>(peer_silence * 1e9)
        cdef Address bell = address_of(identity)
        cdef int error = 0
        cdef int rc
        with nogil:
            rc = agent.enter()
            if rc == 0:
                rc = messenger.enter()
                if rc == 0:
                    self.core = new_core(
                        agent.nixl, agent.handle, &agent.progress, messenger.handle, bell, interval,
                        silence,
                    )
                    error = errno
                    messenger.leave()
                agent.leave()
        check(rc, "reactor")
        if self.core is NULL:
            if error == ENOMEM:
                raise MemoryError("cannot start the completion thread")
            raise OSError(error, "cannot start the completion thread")

    def __dealloc__(self):
        if self.core is NULL or self.generation != fork_generation():
            return
        if not self.stopped:
            with nogil:
                stop_core(self.core, 0, True)
        if _is_over(self.core):
            free_core(self.core)

    cpdef Operation passive(
        self, bytes key, double quarantine, bint writable, Hold hold, uint64_t transfers
    ):
        """Make an operation that a notification of `key` will end; `Operation.listen` starts it.

        Parameters
        ----------
        key : bytes
            The notification key, unique in this process.
        quarantine : float
            Seconds for which the operation stays known after it was abandoned.
        writable : bool
            Whether the peer writes; else it reads.
        hold : Hold
            What it holds.
        transfers : int
            How many notifications end it: 1, more, or 0 where only its owner does.
        """
        cdef Operation operation = self._operation(key, hold)
        operation.record.transfers = transfers
        operation.record.kind = WRITABLE if writable else READABLE
        operation.record.nbytes = hold.nbytes
        operation.record.quarantine = <int64_t>(quarantine * 1e9)
        advance(&operation.record.status, INITIALIZED)
        return operation

    cpdef Operation active(
        self, bytes peer, bytes identity, bint near, bytes key, bytes told_as, double reliable,
        double quarantine, Hold hold
    ):
        """Make a transfer. `request.add_part` says of what, and `Operation.start` posts it.

        Parameters
        ----------
        peer : bytes
            What the connection's agent calls the other one.
        identity : bytes
            Which one that is.
        near : bool
            Whether it was met on this host, and has to be there still.
        key : bytes
            What to notify the peer with when the transfer is done.
        told_as : bytes or None
            What the messenger calls it, which notifies it then; the agent itself if None.
        reliable : float
            From when on, monotonic seconds, that reaches it; the agent notifies it before.
        quarantine : float
            Seconds for which to keep what NIXL fails while the peer is there.
        hold : Hold
            What it holds.
        """
        cdef Operation operation = self._operation(key, hold)
        cdef Record* record = operation.record
        record.is_active = True
        record.quarantine = <int64_t>(quarantine * 1e9)
        record.bell = address_of(identity)
        record.near = near
        record.peer = strdup(peer)
        if told_as is not None:
            record.told_as = strdup(told_as)
            record.reliable = now_ns() / 1e9 >= reliable
        if record.peer is NULL or (told_as is not None and record.told_as is NULL):
            raise MemoryError
        return operation

    def lane(self, Agent agent not None) -> Lane:
        """Start a lane on an agent of its own, to be closed after the connection's.

        Stop the lane after the reactor, and before closing its agent.
        """
        cdef Lane lane = Lane.__new__(Lane)
        lane.open(agent, self, self.core)
        return lane

    def announce(self, bytes identity not None) -> None:
        """Ring a peer's doorbell: it wakes while this side prepares its transfer."""
        cdef Address bell = address_of(identity)
        if self.generation == fork_generation():
            announce(self.core, bell, False)

    def is_near(self, bytes identity not None) -> bool:
        """Whether an agent has its doorbell on this host."""
        cdef Address bell = address_of(identity)
        return self.generation == fork_generation() and is_there(self.core, bell)

    def refresh(self, budget: float) -> None:
        """Have the thread look at the network, so that UCX knows which connections have broken.

        Parameters
        ----------
        budget : float
            Most seconds to wait for it.
        """
        cdef int64_t until = deadline_of(budget)
        cdef uint64_t wanted
        cdef timespec t
        if self.generation != fork_generation():
            return
        t.tv_sec = until // 1000000000
        t.tv_nsec = until % 1000000000
        with nogil:
            pthread_mutex_lock(&self.core.lock)
            # It may be in the middle of a look that has passed over what matters.
            wanted = self.core.passes + (1 if self.core.asleep else 2)
            rouse(self.core)
            self.core.onlookers += 1
            while self.core.passes < wanted and not self.core.stopped and now_ns() < until:
                pthread_cond_timedwait(&self.core.ended, &self.core.lock, &t)
            self.core.onlookers -= 1
            pthread_mutex_unlock(&self.core.lock)

    def introduced(self) -> None:
        """Note that the messenger has begun to connect to a peer: for a while it is looked at."""
        if self.generation == fork_generation():
            pthread_mutex_lock(&self.core.lock)
            self.core.last_activity = self.core.introduced = now_ns()
            self.core.errands_until = self.core.last_activity + INTRODUCTION
            rouse(self.core)
            pthread_mutex_unlock(&self.core.lock)

    cdef Operation _operation(self, bytes key, Hold hold):
        if key is None or hold is None:
            raise TypeError("an operation has a key and a hold")
        if self.generation != fork_generation():
            raise AgentForkedError
        cdef Operation operation = Operation.__new__(Operation)
        self.last_id += 1
        operation.record = new_record(self.last_id, key, len(key))
        if operation.record is NULL:
            raise MemoryError
        operation.reactor = self
        operation.core = self.core
        operation.agent = self.agent
        operation.generation = self.generation
        entrust(self.core, operation.record, hold)
        return operation

    def attach(self, Registry registry not None) -> None:
        """Have the reaper deregister what nobody else does."""
        registry.core = self.core
        registry.reactor = self

    @property
    def name(self) -> bytes:
        """Name of the agent."""
        return self.agent.name

    @property
    def is_copying(self) -> bool:
        """Whether a large transfer is in flight, so that calls to NIXL may take long."""
        return peek_count(&self.core.large_count) > 0

    def look(self, budget: float) -> bool:
        """Look at the transfers in flight, without the GIL, until one ends.

        Parameters
        ----------
        budget : float
            Most seconds to look.

        Returns
        -------
        bool
            Whether one has ended, and others may soon.
        """
        cdef int64_t until = deadline_of(budget)
        cdef size_t ended = 0
        if self.generation != fork_generation():
            raise AgentForkedError
        with nogil:
            if self.agent.enter() == 0:
                ended = look(self.core, until)
                self.agent.leave()
        return ended > 0

    def hear(self, Waker waker not None) -> list[int]:
        """Take what has woken an event loop, on its thread: finished waits, or the doorbell.

        Returns
        -------
        list of int
            Tokens of the waits that finished, in order.
        """
        if self.generation != fork_generation():
            return []
        with nogil:
            if was_called(waker.state):
                answer(self.core, waker.state, self.agent)
        return waker.drain()

    def stop(self, drain: float, bint cancel) -> bool:
        """Wait up to `drain` seconds for transfers in flight, and end the thread.

        Parameters
        ----------
        drain : float
            Seconds.
        cancel : bool
            Whether to end every operation first, and so wake whoever waits.

        Returns
        -------
        bool
            Whether nothing is in flight any more, nor may be, as what NIXL failed while its peer
            was there. If False, neither the agents nor the memory of those transfers may ever be
            freed.
        """
        cdef int64_t ns = <int64_t>(drain * 1e9)
        if self.generation != fork_generation():
            return False
        if not self.stopped:
            self.stopped = True
            with nogil:
                stop_core(self.core, ns, cancel)
        return _is_over(self.core)

    @property
    def counters(self) -> dict[str, int]:
        """Counts of now and since the start."""
        # Nothing of Python may happen under the lock: an allocation can start a collection of
        # garbage, and with it the finalizer of an operation, which takes the lock too.
        pthread_mutex_lock(&self.core.lock)
        cdef Core seen = self.core[0]
        pthread_mutex_unlock(&self.core.lock)
        return {
            "operations": seen.census.entered,
            "passive": seen.passive_count,
            "active": seen.active_count,
            "waiting": seen.waiting,
            "rings": seen.rings,
            "rings_ignored": seen.ignored,
            "answers": seen.answers,
            "lent": seen.listener is not NULL,
            "notifications": seen.notified,
            "notifications_unmatched": seen.unmatched,
            "notifications_direct": seen.direct,
            "held": peek_count(&self.core.held),
            "held_bytes": peek_count(&self.core.held_bytes),
            "quarantined": seen.census.quarantined,
            "quarantined_bytes": seen.census.quarantined_bytes,
        }

    @property
    def tallies(self) -> list[tuple[int, int, int, int, int, list[int]]]:
        """What became of operations, by kind: readable, writable, read, write, repeated.

        Each is (complete, cancelled, errored, bytes of the complete ones, nanoseconds that they
        took, how many took up to 1, 2, 4, ... microseconds; the last: how many took longer).
        """
        pthread_mutex_lock(&self.core.lock)
        cdef Census seen = self.core.census
        pthread_mutex_unlock(&self.core.lock)
        return tallies_of(&seen)

    @property
    def quarantined_bytes(self) -> int:
        """Bytes of memory that is in quarantine."""
        return peek_count(&self.core.census.quarantined_bytes)

    @property
    def population(self) -> list[tuple[int, int, int, int]]:
        """How many operations there are: (kind, status, whether metadata was handed out, count)."""
        return population_of(&self.core.census, &self.core.lock)

    def operations(
        self, before: float, most: int
    ) -> list[tuple[int, int, int, int, bool, int, int, int, float, float, str]]:
        """Return the `most` oldest operations that began before a monotonic time, in order.

        Each is (id, kind, status, bytes, whether metadata was handed out, how many transfers
        complete it, how many have completed, how many failed, when it began, its deadline, the
        peer's name). One whose status is final is being drained, if it is active, or
        in quarantine until its deadline.
        """
        if self.generation != fork_generation():
            raise AgentForkedError
        return operations_of(&self.core.census, &self.core.lock, <int64_t>(before * 1e9), most)

"""Lanes: agents with a thread each, for long copies.

Between processes of one host UCX copies memory in one system call, inside NIXL's post, on the
thread that posts and under the agent's lock. A lane makes such a post on a thread and an agent of
its own: two lanes copy two halves at once, and nothing else of the connection waits for them.

A part belongs to its lane from `hand_over` until the lane counts it as finished. The record, which
holds it, stays with its owner, the completion thread.
"""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.atomic cimport atomic_add
from nixl_connect._native.capi cimport NIXL_IN_PROGRESS, NIXL_SUCCESS
from nixl_connect._native.copying cimport take_turn
from nixl_connect._native.core cimport is_there, rouse
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.posix cimport (
    init_monotonic,
    name_thread,
    now_ns,
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_signal,
    pthread_cond_timedwait,
    pthread_cond_wait,
    pthread_create,
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    relax,
    timespec,
)
from nixl_connect._native.record cimport GONE, PROBE, PROBE_SIZE

cdef enum:
    # How a lane waits for what is in flight, in nanoseconds: it spins, then naps.
    SPIN = 100_000
    NAP = 200_000


cdef void hand_over(Part* part) noexcept nogil:
    """Have a part posted by its lane, whose part it is from here on."""
    cdef LaneState* lane = <LaneState*>part.lane
    part.next = NULL
    atomic_add(lane.busy, 1)
    pthread_mutex_lock(&lane.lock)
    if lane.first is NULL:
        lane.first = part
    else:
        lane.last.next = part
    lane.last = part
    pthread_cond_signal(&lane.work)
    pthread_mutex_unlock(&lane.lock)


cdef void _finish(LaneState* lane, Part* part, int rc) noexcept nogil:
    """Give a part back, and wake the record's owner with the last one.

    The request ends here, where a call to the lane's agent waits for nobody's copy; but not one
    that failed and may go on: see `transfer.settle`.
    """
    cdef Core* core = lane.core
    part.rc = rc
    # NIXL refuses to send to a peer that it knows to be lost.
    part.lost = rc == GONE or (
        rc != NIXL_SUCCESS
        and lane.nixl.gen_notif(part.agent, part.peer, PROBE, PROBE_SIZE, NULL) != NIXL_SUCCESS
    )
    if rc == NIXL_SUCCESS or part.lost:
        lane.nixl.release_xfer_req(part.agent, part.request)
        lane.nixl.destroy_xfer_req(part.request)
        part.request = NULL
    atomic_add(lane.busy, -1)
    if atomic_add(&part.record.unfinished, -1) == 0:
        # The record is its owner's again, and may be gone.
        pthread_mutex_lock(&core.lock)
        rouse(core)
        if core.sleepers:
            pthread_cond_broadcast(&core.ended)
        pthread_mutex_unlock(&core.lock)


cdef void _post_all(LaneState* lane, Part* part) noexcept nogil:
    cdef Part* rest
    cdef int rc
    while part is not NULL:
        rest = part.next
        if part.record.writes and part.record.near and not is_there(lane.core, part.record.bell):
            rc = GONE
        else:
            pthread_mutex_lock(lane.progress)
            rc = lane.nixl.post_xfer_req(part.agent, part.request, NULL)
            pthread_mutex_unlock(lane.progress)
        if rc == NIXL_IN_PROGRESS:
            part.next = lane.active
            lane.active = part
        else:
            _finish(lane, part, rc)
        part = rest


cdef bint _poll(LaneState* lane) noexcept nogil:
    """Look once at what is in flight; return whether something ended."""
    cdef Part** link = &lane.active
    cdef Part* part
    cdef bint ended = False
    cdef int rc
    while link[0] is not NULL:
        part = link[0]
        pthread_mutex_lock(lane.progress)
        rc = lane.nixl.get_xfer_status(part.agent, part.request)
        pthread_mutex_unlock(lane.progress)
        if rc == NIXL_IN_PROGRESS:
            link = &part.next
        else:
            link[0] = part.next
            _finish(lane, part, rc)
            ended = True
    return ended


cdef void* _run(void* argument) noexcept nogil:
    cdef LaneState* lane = <LaneState*>argument
    cdef Part* batch
    cdef int64_t since = 0
    cdef int64_t now
    cdef timespec t
    cdef unsigned int turns = 0
    name_thread(b"nixl-lane")
    take_turn()
    pthread_mutex_lock(&lane.lock)
    while not lane.abandoned:
        if lane.first is NULL and lane.active is NULL:
            if lane.stopping:
                break
            pthread_cond_wait(&lane.work, &lane.lock)
            take_turn()
            since = now_ns()
            continue
        now = now_ns()
        if lane.first is NULL and now > since + SPIN:
            t.tv_sec = (now + NAP) // 1000000000
            t.tv_nsec = (now + NAP) % 1000000000
            pthread_cond_timedwait(&lane.work, &lane.lock, &t)
            take_turn()
        batch = lane.first
        lane.first = NULL
        pthread_mutex_unlock(&lane.lock)
        _post_all(lane, batch)
        if _poll(lane):
            since = now_ns()
        else:
            relax(&turns)
        pthread_mutex_lock(&lane.lock)
    pthread_mutex_unlock(&lane.lock)
    return NULL


cdef LaneState* _open(
    const Api* nixl, pthread_mutex_t* progress, int* busy, Core* core
) noexcept nogil:
    """Start a lane's thread. Returns NULL when out of memory or threads."""
    cdef LaneState* lane = <LaneState*>calloc(1, sizeof(LaneState))
    if lane is NULL:
        return NULL
    lane.nixl = nixl
    lane.progress = progress
    lane.busy = busy
    lane.core = core
    pthread_mutex_init(&lane.lock, NULL)
    init_monotonic(&lane.work)
    if pthread_create(&lane.thread, NULL, _run, lane):
        _free(lane)
        return NULL
    return lane


cdef void _free(LaneState* lane) noexcept nogil:
    pthread_cond_destroy(&lane.work)
    pthread_mutex_destroy(&lane.lock)
    free(lane)


@cython.no_gc  # it refers downwards only, and must not be cleared before its thread has ended
cdef class Lane:
    """A lane. Made by `Reactor.lane`."""

    cdef void open(self, Agent agent, object reactor, Core* core) except *:
        """Start the thread. `reactor` keeps `core` alive."""
        self.agent = agent
        self.reactor = reactor
        self.generation = fork_generation()
        self.state = _open(agent.nixl, &agent.progress, &agent.long_calls, core)
        if self.state is NULL:
            raise MemoryError("cannot start a lane's thread")

    def __dealloc__(self):
        # Stopped before, if anything was in flight: its engine sees to that.
        if self.state is not NULL and self.generation == fork_generation():
            _free(self._ended(True))

    cdef LaneState* _ended(self, bint abandon):
        """End the thread; return the state, which is the caller's then."""
        cdef LaneState* state = self.state
        self.state = NULL  # with the GIL held: from here on nobody finds what is freed
        with nogil:
            pthread_mutex_lock(&state.lock)
            state.stopping = True
            state.abandoned = abandon
            pthread_cond_signal(&state.work)
            pthread_mutex_unlock(&state.lock)
            pthread_join(state.thread, NULL)
        return state

    def stop(self, bint abandon) -> None:
        """End the thread, after the reactor. Idempotent.

        Parameters
        ----------
        abandon : bool
            Leave what is in flight as it is: neither the agent nor the memory may ever be freed.
            Waits for a copy that is going on, and no longer.
        """
        cdef LaneState* state
        if self.state is not NULL and self.generation == fork_generation():
            state = self._ended(abandon)
            # Where something is left in flight, a thread may be about to hand over more of it.
            if not abandon:
                _free(state)

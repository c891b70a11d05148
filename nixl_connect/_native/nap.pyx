"""How the completion thread sleeps: on the doorbell, and for as long as nothing is to be done."""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from nixl_connect._native.bell cimport BEGINS, MOVES, TOLD, Ring, take_ring
from nixl_connect._native.core cimport (
    HEARD_NAP,
    LONGEST_NAP,
    take_bell,
    withhold_bell,
    withhold_for_now,
)
from nixl_connect._native.delivery cimport deliver, note_mover
from nixl_connect._native.posix cimport (
    POLLIN,
    now_ns,
    pollfd,
    ppoll,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    read,
    relax,
    timespec,
)

# How the thread sleeps, in nanoseconds. While operations wait: for a twentieth of the time since
# something happened, within these bounds; but not at all when a peer has said that something comes.
cdef enum:
    SHORTEST_NAP = 50_000
    RUNG = 200_000              # how long to expect something after the doorbell
    SENT = 20_000               # and where NIXL has it already
    # Datagrams to take at a time: who rings more often wakes nobody more often.
    MOST = 64
    # When MOST_RINGS of other users in a row have brought nothing, one counts every so often, and
    # for the others the thread is deaf for a while: whoever rings for the fun of it gets 2% of a
    # processor.
    REFILL = 10_000_000
    DEAF = 1_000_000
    # With nothing to do it stays so long before it sleeps: the next operation need not wake it.
    LINGER = 5_000_000
    # Nobody waits: abandoned transfers are drained and quarantines watched at leisure.
    LEISURE_NAP = 20_000_000
    QUARANTINE_NAP = 100_000_000
    # So many messages between two looks do not fill a peer's queue, which takes 256 of UCX's.
    FEW = 64
    # How long a loop that has the doorbell may take to hear it.
    UNHEARD = 500_000
    # How long a message may wait for a peer that is slow to connect, where nobody else looks.
    DELIVERY = 10_000_000_000


cdef bint heed(Core* core) noexcept nogil:
    """Take what the doorbell has: what peers tell, and what they announce. Lock held.

    On any thread: whoever waits looks here before it sleeps. Returns whether NIXL may have to be
    asked for more.
    """
    cdef Ring ring
    cdef bint any = False
    cdef bint own = False       # of this process's user: rings with which NIXL may have something
    cdef bint vain = False      # of another user, the same, or keys that are nobody's
    cdef bint announced = False
    cdef bint several = False
    cdef int who = 0
    cdef int64_t now
    cdef int _i
    for _i in range(MOST):
        if not take_ring(core.bell, &ring):
            break
        any = True
        if ring.said == TOLD and deliver(core, ring.key, ring.key_size):
            core.heard = True
            core.direct += 1
            if ring.process == who and not several:
                own = announced = False  # which has come
            continue
        if ring.said == MOVES and ring.key_size:
            note_mover(core, ring.key, ring.key_size, ring.mover)
        if ring.process < 0:
            vain = True
        elif ring.said != TOLD and ring.said != MOVES:
            several = several or (own and ring.process != who)
            announced = announced or ring.said == BEGINS
            own = True
            who = ring.process
    if any:
        core.rings += 1
    if not own and not vain:
        return False
    now = now_ns()
    if own:
        if announced:
            core.notified_then = core.notified
        core.several = several or (
            now < core.rung_until and (core.several or core.ringer != who)
        )
        core.ringer = who
        core.rung_until = max(core.rung_until, now + (RUNG if announced else SENT))
        if who == core.process:
            # Who moves the bytes is in this process, perhaps on the loop's own thread.
            withhold_bell(core)
        return True
    if core.credit == 0 and now > core.refilled + REFILL:
        core.credit = 1
    if core.credit:
        core.credit -= 1
        core.refilled = now
        core.rung_until = now + RUNG
        return True
    core.deaf_until = now + DEAF
    core.ignored += 1
    return False


cdef void _sleep(Core* core, int64_t until) noexcept nogil:
    """Sleep until a moment, INT64_MAX for without end, the doorbell, or `rouse`. Lock held."""
    cdef pollfd[2] sources
    cdef timespec left
    cdef int64_t now
    cdef uint64_t count
    sources[0].fd = core.work
    now = now_ns()
    # A descriptor below 0 is passed over.
    sources[1].fd = core.bell if core.listener is NULL and now >= core.deaf_until else -1
    if now < core.deaf_until:
        until = min(until, core.deaf_until)
    sources[0].events = sources[1].events = POLLIN
    sources[0].revents = sources[1].revents = 0
    core.asleep_until = until
    core.asleep = True
    pthread_mutex_unlock(&core.lock)
    left.tv_sec = max(until - now, 0) // 1000000000
    left.tv_nsec = max(until - now, 0) % 1000000000
    ppoll(sources, 2, NULL if until == INT64_MAX else &left, NULL)
    if sources[0].revents:
        read(core.work, &count, 8)
    pthread_mutex_lock(&core.lock)
    core.asleep = False
    if sources[1].revents:
        heed(core)
    elif core.listener is not NULL and not core.attended:
        _look_after(core)


cdef void _look_after(Core* core) noexcept nogil:
    """See that the loop that has the doorbell hears it. Lock held."""
    cdef pollfd bell
    cdef timespec none
    bell.fd = core.bell
    bell.events = POLLIN
    bell.revents = 0
    none.tv_sec = none.tv_nsec = 0
    ppoll(&bell, 1, &none, NULL)
    if not bell.revents:
        core.unheard = False
    elif not core.unheard or core.answered != core.answers:
        core.unheard = True  # perhaps only just now
        core.answered = core.answers
    else:
        core.unheard = False
        if heed(core):
            withhold_for_now(core)


cdef void nap(Core* core) noexcept nogil:
    """Sleep for as long as the state of things allows, or until roused. Lock held."""
    cdef int64_t now = now_ns()
    cdef int64_t idle = now - core.last_activity
    cdef int64_t length = LONGEST_NAP
    cdef int64_t waited
    if core.roused:
        core.roused = False
        return
    if core.attended:
        _sleep(core, max(core.rung_until, now + SHORTEST_NAP))
        return
    if now < core.rung_until:
        if now >= core.deaf_until:
            heed(core)  # what is to come may come here
        pthread_mutex_unlock(&core.lock)
        relax(&core.turns)
        pthread_mutex_lock(&core.lock)
        return
    if core.listener is not NULL and core.listener.waits == 0 and idle > LINGER:
        take_bell(core)
    if core.unheard and core.listener is not NULL:
        _sleep(core, now + UNHEARD)
        return
    if core.waiting and not core.stopping:
        if core.passive_count == 0 and now < core.looked_until:
            length = core.looked_until - now
        elif core.active_count == 0 and core.heard:
            length = HEARD_NAP
        else:
            length = min(max(idle // 20, <int64_t>SHORTEST_NAP), <int64_t>LONGEST_NAP)
    elif now < core.errands_until:
        # A message hardly ever waits, but where a peer's queue is full; or to be connected.
        waited = idle if core.told > FEW else now - core.introduced
        length = min(max(waited // 20, <int64_t>SHORTEST_NAP), <int64_t>LONGEST_NAP)
        core.told = 0
    elif idle > LINGER and not core.stopping:
        if core.active_count:
            length = LEISURE_NAP
        elif core.passive_count:
            length = QUARANTINE_NAP
        else:
            length = core.idle_interval
            if length == 0 and now < core.last_told + DELIVERY:
                length = QUARANTINE_NAP
    _sleep(core, min(now + length if length else INT64_MAX, max(core.next_deadline, now)))

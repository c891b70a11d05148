"""The completion thread: one per connection. It polls NIXL for all who do not do so themselves.

It takes notifications, looks at the transfers in flight, posts those that were too large for their
caller's thread, and keeps deadlines. When an operation ends it hands the waits to their wakers and
the record to a list, from which Python collects.
"""

from libc.errno cimport ENOMEM, errno
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport calloc, free

from nixl_connect._native.atomic cimport peek_int, peek_time
from nixl_connect._native.bell cimport Address, open_bell
from nixl_connect._native.capi cimport Api
from nixl_connect._native.core cimport (
    MOST_RINGS,
    finish,
    leave_table,
    retire,
    rouse,
    take_bell,
    take_out,
)
from nixl_connect._native.file_descriptors cimport own_close, own_eventfd, own_socket
from nixl_connect._native.delivery cimport look_for_mover
from nixl_connect._native.here cimport come, go
from nixl_connect._native.nap cimport heed, nap
from nixl_connect._native.notifications cimport poll_notifications
from nixl_connect._native.posix cimport (
    AF_UNIX,
    EFD_NONBLOCK,
    PR_SET_TIMERSLACK,
    SOCK_DGRAM,
    getpid,
    init_brief,
    init_monotonic,
    name_thread,
    now_ns,
    prctl,
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_signal,
    pthread_create,
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    usleep,
)
from nixl_connect._native.record cimport (
    REASON_CLOSED,
    REASON_TIMEOUT,
    STAGE_CLEAN,
    STAGE_UNKNOWN,
    Record,
    release_record,
)
from nixl_connect._native.status cimport CANCELLED, ERRORED
from nixl_connect._native.transfer cimport IN_FLIGHT, let_go, poll_active, post

cdef extern from *:
    """
    #include <errno.h>
    #define NC_SET_ERRNO(value) (errno = (value))
    """
    void set_errno "NC_SET_ERRNO"(int value) nogil

cdef enum:
    # How long the last notification may take to leave the process before the agent is destroyed;
    # and where its connection may have been made just now.
    FLUSH = 20_000_000
    LONG_FLUSH = 60_000_000
    JUST_NOW = 250_000_000
    TURN = 1_000_000
    # How often to look after the messenger's connections when it has nothing to say.
    ERRANDS = 50_000_000


cdef void _poll_messenger(Core* core) noexcept nogil:
    """Let messages leave that wait for a connection, or for a slow peer. `hearing` held."""
    cdef int64_t now = now_ns()
    if now < peek_time(&core.errands_until) or now >= core.last_errand + ERRANDS:
        core.last_errand = now
        core.nixl.get_notifs(core.messenger, core.notifications, NULL)
        core.nixl.notif_map_clear(core.notifications)  # nobody has its address


cdef void _poll_network(Core* core) noexcept nogil:
    """Take what has come, and let leave what goes; not while an event loop listens."""
    if peek_int(&core.onlookers):
        pthread_mutex_lock(&core.hearing)
    elif pthread_mutex_trylock(&core.hearing):
        return
    poll_notifications(core, True)
    _poll_messenger(core)
    pthread_mutex_unlock(&core.hearing)


cdef void _accept(Core* core, Record* batch) noexcept nogil:
    """Post incoming records, given newest first."""
    cdef Record* record
    cdef Record* ordered = NULL
    while batch is not NULL:
        record = batch
        batch = record.next
        record.next = ordered
        ordered = record
    while ordered is not NULL:
        record = ordered
        ordered = record.next
        if post(core, record, True) == IN_FLIGHT:
            record.next = core.active
            core.active = record


cdef int64_t _earliest(const Record* record) noexcept nogil:
    cdef int64_t earliest = INT64_MAX
    while record is not NULL:
        earliest = min(earliest, record.deadline)
        record = record.next
    return earliest


cdef void _check_deadlines(Core* core) noexcept nogil:
    cdef int64_t now = now_ns()
    cdef int64_t earliest = INT64_MAX
    cdef int64_t again = INT64_MAX
    cdef size_t i
    cdef Record* record
    cdef Record* rest
    if now < peek_time(&core.next_deadline) or pthread_mutex_trylock(&core.polling):
        return  # for now: whoever has the transfers has them for microseconds
    let_go(core, now)
    pthread_mutex_lock(&core.lock)
    heed(core)  # what has been told already is not late, though an event loop has yet to hear it
    if now >= core.next_deadline:
        for i in range(core.bucket_count):
            record = core.buckets[i]
            while record is not NULL:
                rest = record.next
                if now >= record.deadline:
                    if finish(core, record, ERRORED, REASON_TIMEOUT, 0):
                        leave_table(core, record)
                    else:
                        take_out(core, record)  # its quarantine is over
                        retire(core, record, STAGE_CLEAN)
                else:
                    again = min(again, look_for_mover(core, record, now))
                record = rest
        # Those that are left, with the deadlines that they now have.
        for i in range(core.bucket_count):
            record = core.buckets[i]
            while record is not NULL:
                earliest = min(earliest, record.deadline)
                record = record.next
        record = core.active
        while record is not NULL:
            if now >= record.deadline:
                finish(core, record, ERRORED, REASON_TIMEOUT, 0)
                record.deadline = INT64_MAX  # it is drained, for as long as that takes
            earliest = min(earliest, record.deadline)
            record = record.next
        core.next_deadline = min(
            min(min(earliest, again), _earliest(core.lingering)),
            min(_earliest(core.incoming), _earliest(core.posted)),
        )
    pthread_mutex_unlock(&core.lock)
    pthread_mutex_unlock(&core.polling)


cdef void _cancel_list(Core* core, Record* record) noexcept nogil:
    while record is not NULL:
        if not record.claimed:
            finish(core, record, CANCELLED, REASON_CLOSED, 0)
        record = record.next


cdef void _cancel_all(Core* core) noexcept nogil:
    """End every operation, because the connection closes. Both locks held."""
    cdef size_t i
    cdef Record* record
    heed(core)
    for i in range(core.bucket_count):
        while core.buckets[i] is not NULL:
            record = core.buckets[i]
            take_out(core, record)
            finish(core, record, CANCELLED, REASON_CLOSED, 0)
            if record.exposed and record.quarantine > 0:
                retire(core, record, STAGE_UNKNOWN)
            else:
                retire(core, record, STAGE_CLEAN)
    # What is in flight is cancelled here and drained by the loop below.
    _cancel_list(core, core.active)
    _cancel_list(core, core.incoming)
    _cancel_list(core, core.posted)


cdef bint _is_due(Core* core) noexcept nogil:
    """Whether active transfers are this thread's to look at. Lock held."""
    return core.active_count > 0 and (
        core.incoming is not NULL or core.large_count > 0 or now_ns() >= core.looked_until
    )


cdef void _poll_transfers(Core* core, bint patient) noexcept nogil:
    """Do what there is to do for active transfers, unless another thread looks at them."""
    cdef Record* batch
    if not patient:
        if pthread_mutex_trylock(&core.polling):
            return
    else:
        pthread_mutex_lock(&core.polling)
    pthread_mutex_lock(&core.lock)
    if core.cancelling:
        _cancel_all(core)
    batch = core.incoming
    core.incoming = NULL
    pthread_mutex_unlock(&core.lock)
    _accept(core, batch)
    poll_active(core)
    pthread_mutex_unlock(&core.polling)


cdef void* _run(void* argument) noexcept nogil:
    cdef Core* core = <Core*>argument
    cdef bint stopping
    cdef bint patient
    cdef bint due
    cdef bint swept = False     # a pass has seen that the core stops
    cdef int64_t last
    cdef int64_t _
    name_thread(b"nixl-reactor")
    prctl(PR_SET_TIMERSLACK, <unsigned long>1000, 0, 0, 0)
    pthread_mutex_lock(&core.lock)
    while True:
        stopping = core.stopping
        if swept and (core.active_count == 0 or now_ns() >= core.drain_until):
            break
        if core.incoming is NULL and (swept or not stopping):
            nap(core)
            stopping = core.stopping
        # Another thread may be looking at small transfers, for some tens of microseconds.
        patient = stopping or core.incoming is not NULL
        due = patient or _is_due(core)
        pthread_mutex_unlock(&core.lock)
        # Whether or not somebody listens: this is also what answers peers.
        _poll_network(core)
        if due:
            _poll_transfers(core, patient)
        _check_deadlines(core)
        swept = stopping
        pthread_mutex_lock(&core.lock)
        core.passes += 1
        if core.onlookers:
            pthread_cond_broadcast(&core.ended)
    core.stopped = True
    if core.last_told:
        pthread_mutex_unlock(&core.lock)
        last = core.last_told
        last += LONG_FLUSH if last < core.introduced + JUST_NOW else FLUSH
        # Turns, not time: whoever hardly gets a processor needs longer.
        for _ in range((last - now_ns()) // TURN):
            usleep(TURN // 1000)
            core.errands_until = INT64_MAX
            _poll_network(core)  # NIXL before 1.5 sends no sooner
        pthread_mutex_lock(&core.lock)
    pthread_cond_broadcast(&core.ended)
    pthread_cond_signal(&core.garbage)
    pthread_mutex_unlock(&core.lock)
    return NULL


cdef void _close_descriptors(Core* core) noexcept nogil:
    """Close what the thread sleeps on, once it is gone."""
    if core.work >= 0:
        own_close(core.work)
    if core.bell >= 0:
        own_close(core.bell)
    if core.probe >= 0:
        own_close(core.probe)
    core.work = core.bell = core.probe = -1


cdef Core* new_core(
    const Api* nixl, void* agent, pthread_mutex_t* progress, void* messenger, Address own,
    int64_t idle_interval, int64_t peer_silence
) noexcept nogil:
    """Make a core and start its thread. Returns NULL, and sets errno, where something runs out."""
    cdef Core* core = <Core*>calloc(1, sizeof(Core))
    cdef int error = 0
    if core is NULL:
        set_errno(ENOMEM)
        return NULL
    core.nixl = nixl
    core.agent = agent
    core.progress = progress
    core.messenger = messenger
    core.next_deadline = INT64_MAX
    core.idle_interval = idle_interval
    core.peer_silence = peer_silence
    core.process = getpid()
    core.work = core.bell = core.probe = -1
    core.bucket_count = 64
    core.buckets = <Record**>calloc(core.bucket_count, sizeof(Record*))
    if core.buckets is NULL or nixl.create_notif_map(&core.notifications):
        free(core.buckets)
        free(core)
        set_errno(ENOMEM)
        return NULL
    # These fail only for want of memory that glibc does not allocate.
    init_brief(&core.lock)
    init_brief(&core.polling)
    init_brief(&core.hearing)
    init_monotonic(&core.ended)
    init_monotonic(&core.garbage)
    core.credit = MOST_RINGS
    core.work = own_eventfd(0, EFD_NONBLOCK)
    core.probe = own_socket(AF_UNIX, SOCK_DGRAM, 0)
    if core.work < 0 or core.probe < 0:
        error = errno
    core.bell = open_bell(own, &core.named)  # or none: then nobody can ring
    core.own = own
    if error == 0:
        error = pthread_create(&core.thread, NULL, _run, core)
    if error:
        core.stopped = True
        free_core(core)
        set_errno(error)
        return NULL
    come(core)
    return core


cdef void stop_core(Core* core, int64_t drain, bint cancel) noexcept nogil:
    """Wait at most `drain` nanoseconds for transfers in flight, and join the thread.

    With `cancel` every operation is ended first. Without it those that are left stay as they are,
    and so do their waiters: at the interpreter's exit nobody is to be woken. To be called once.
    """
    pthread_mutex_lock(&core.lock)
    core.drain_until = now_ns() + drain
    core.cancelling = cancel
    core.stopping = True
    take_bell(core)
    rouse(core)
    pthread_mutex_unlock(&core.lock)
    pthread_join(core.thread, NULL)
    go(core)
    pthread_mutex_lock(&core.lock)
    _close_descriptors(core)
    pthread_mutex_unlock(&core.lock)


cdef void free_core(Core* core) noexcept nogil:
    """Free a core whose thread is gone and which no operation references."""
    cdef Record* record
    while core.retired is not NULL:
        record = core.retired
        core.retired = record.next
        release_record(record)
    while core.quarantined is not NULL:
        record = core.quarantined
        core.quarantined = record.next_quarantined
        release_record(record)
    core.nixl.destroy_notif_map(core.notifications)
    _close_descriptors(core)
    pthread_cond_destroy(&core.ended)
    pthread_cond_destroy(&core.garbage)
    pthread_mutex_destroy(&core.lock)
    pthread_mutex_destroy(&core.polling)
    pthread_mutex_destroy(&core.hearing)
    free(core.buckets)
    free(core)

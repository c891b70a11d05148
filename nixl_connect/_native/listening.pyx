"""An event loop that listens for its peers by itself.

While a loop waits for operations that peers complete, it has the doorbell in place of the
completion thread: a ring wakes the loop's thread, which then takes the notification. Woken by the
thread it would run a change of threads later, and on a machine with few processors after that
thread has left its own.

The completion thread sleeps meanwhile, and looks now and then: where a ring has found the loop
busy, and where the loop has looked in vain several times, the thread takes the doorbell back.
Blocking waits, and a second loop, leave it to the thread too.
"""

from libc.stdint cimport int64_t

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.core cimport lend_bell, take_bell, withhold_bell
from nixl_connect._native.nap cimport heed
from nixl_connect._native.notifications cimport poll_notifications
from nixl_connect._native.atomic cimport peek_int
from nixl_connect._native.posix cimport (
    now_ns,
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    relax,
)
from nixl_connect._native.waker cimport WakerState, is_ready, watch

cdef enum:
    # A loop that has been rung so often in a row for nothing leaves the doorbell to the thread.
    MOST_VAIN = 4


cdef void _listen(Core* core, WakerState* loop, int64_t until) noexcept nogil:
    """Take notifications until one ends a wait of the loop, or until a moment."""
    cdef unsigned int turns = 0
    # The thread may be at it, which wakes this one.
    if pthread_mutex_trylock(&core.hearing) == 0:
        while True:
            poll_notifications(core)
            if is_ready(loop) or peek_int(<int*>&core.stopping) or now_ns() >= until:
                break
            relax(&turns)
        pthread_mutex_unlock(&core.hearing)


cdef void answer(Core* core, WakerState* loop, Agent agent) noexcept nogil:
    """Do what a ring asks for. On the loop's thread, which then drains its waker."""
    cdef int64_t until
    cdef bint ready
    pthread_mutex_lock(&core.lock)
    loop.armed = False
    if core.listener != loop or core.stopping:
        pthread_mutex_unlock(&core.lock)
        return
    core.answers += 1
    heed(core)
    until = core.rung_until
    core.attended = True
    pthread_mutex_unlock(&core.lock)
    watch(loop)
    if now_ns() < until and agent.enter() == 0:
        _listen(core, loop, until)
        agent.leave()
    ready = is_ready(loop)
    pthread_mutex_lock(&core.lock)
    core.attended = False
    if ready:
        heed(core)  # a second ring for what has just come
        if not core.several:
            core.rung_until = 0
    else:
        core.vain += 1
        if core.vain == MOST_VAIN:
            withhold_bell(core)
    if core.listener == loop:
        lend_bell(core, loop)
        # Where the loop does not hear it, and for what others have announced, there is the thread.
        if not loop.armed or (core.several and now_ns() < core.rung_until):
            take_bell(core)
    pthread_mutex_unlock(&core.lock)

"""An event loop that listens for its peers by itself.

While a loop waits for operations that peers complete, it has the doorbell in place of the
completion thread: a ring wakes the loop's thread, which then takes the notification. Woken by the
thread it would run a change of threads later, and on a machine with few processors after that
thread has left its own.

The completion thread sleeps meanwhile, and looks now and then: where a ring has found the loop
busy, and where the loop has looked in vain several times, the thread takes the doorbell back.
Blocking waits, and a second loop, leave it to the thread too.
"""

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.core cimport lend_bell, take_bell, withhold_bell
from nixl_connect._native.nap cimport heed
from nixl_connect._native.notifications cimport poll_notifications
from nixl_connect._native.atomic cimport peek_count, peek_int, peek_time
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


cdef enum Look:
    SEEN                        # all there is to see for now
    LATER                       # another thread is in a call that may take long
    ELSEWHERE                   # the completion thread looks


cdef Look _listen(Core* core, WakerState* loop, Agent agent) noexcept nogil:
    """Take notifications until one ends a wait of the loop, or nothing more is to be expected."""
    cdef unsigned int turns = 0
    cdef bint quick = True
    if pthread_mutex_trylock(&core.hearing):
        return ELSEWHERE
    while quick:
        pthread_mutex_lock(&core.lock)
        heed(core)
        pthread_mutex_unlock(&core.lock)
        if is_ready(loop):
            break
        quick = (
            peek_count(&core.large_count) == 0 and not agent.keeps_busy()
            and poll_notifications(core, False)
        )
        if (
            is_ready(loop) or peek_int(<int*>&core.stopping)
            or now_ns() >= peek_time(&core.rung_until)
        ):
            break
        relax(&turns)
    pthread_mutex_unlock(&core.hearing)
    return SEEN if quick else LATER


cdef void answer(Core* core, WakerState* loop, Agent agent) noexcept nogil:
    """Do what a ring asks for. On the loop's thread, which then drains its waker."""
    cdef Look look = LATER
    cdef bint ready
    watch(loop)
    pthread_mutex_lock(&core.lock)
    loop.armed = False
    if core.listener != loop or core.stopping:
        pthread_mutex_unlock(&core.lock)
        return
    core.answers += 1
    heed(core)
    core.attended = True
    pthread_mutex_unlock(&core.lock)
    if is_ready(loop):
        look = SEEN
    elif agent.enter() == 0:
        look = _listen(core, loop, agent)
        agent.leave()
    ready = is_ready(loop)
    pthread_mutex_lock(&core.lock)
    core.attended = False
    heed(core)  # a second ring, perhaps for what has just come
    if core.notified != core.notified_then and not core.several:
        core.rung_until = 0  # what was announced has come
    if ready:
        core.vain = 0
        core.withheld //= 2
    elif look == SEEN:
        core.vain += 1
        if core.vain == MOST_VAIN:
            withhold_bell(core)
    if core.listener == loop:
        lend_bell(core, loop)
        # Where the loop does not hear it, and for what is still to come, there is the thread.
        if not loop.armed or look == LATER or (ready and now_ns() < core.rung_until):
            take_bell(core)
    pthread_mutex_unlock(&core.lock)

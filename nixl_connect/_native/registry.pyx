"""What is registered with one agent: shared, counted, released by the last who needs it.

Two locks, under which nothing of Python runs. `gate` is held while NIXL registers, deregisters, or
builds a request that will refer to registrations, so that none of these sees another half done;
NIXL serialises them anyway. It is waited for without the GIL. The maps have what NIXL has, and
change with the gate held alone. `lock` guards the counts, and the maps for those who look at them
without the gate; it is taken last, for as long as it takes to count.

A registration has a reference to what owns its memory, for as long as NIXL has it. So whoever
needs it may forget the memory before it is deregistered. What nobody needs any more is queued: it
is deregistered at once or, where the gate is not to be had, by the next who has it, unless it is
needed again by then.
"""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from nixl_connect._native.agent cimport AGENT_CLOSED, AGENT_FORKED, Agent
from nixl_connect._native.atomic cimport atomic_store, peek_count, peek_int
from nixl_connect._native.core cimport poke
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.posix cimport (
    init_brief,
    CLOCK_REALTIME,
    clock_gettime,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_timedlock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    timespec,
)
from nixl_connect._native.registration cimport (
    have_room,
    let_go,
    make_all,
    note,
    regions_of,
    split_off,
)
from nixl_connect._native.shelf cimport (
    add_holders,
    all_are_held,
    emptied,
    find_all,
    put_in,
    take_out,
)

from nixl_connect._native.agent import AgentClosedError, AgentForkedError
from nixl_connect._native.lock import NotQuickError


cdef enum:
    # Registering more than this for the first time takes long: pages are pinned one by one.
    QUICK_BYTES = 1024 * 1024
    QUICK_ROWS = 64
    # More of them are not deregistered on whichever thread comes by.
    QUICK_IDLE = 256
    # NIXL's status of what is not registered.
    NOT_FOUND = -6


class RefusedError(Exception):
    """NIXL has refused to register memory: its status, and which regions, see `Registry`."""


@cython.no_gc  # it refers downwards only; what its registrations own is not to be seen through
cdef class Registry:
    """What is registered with one agent. Safe to call from any thread.

    Parameters
    ----------
    agent : Agent
        Whose.
    report : callable
        Is told what happens to regions: what, a NIXL status, and which they are: their memory type,
        how many there are, their bytes together, and the first one's row.
    pins : bool
        Whether it may have devices that pin pages, which takes long for many.
    """

    def __cinit__(self, Agent agent not None, report: object, *, bint pins=True):
        self.agent = agent
        self.report = report
        self.pins = pins
        self.generation = fork_generation()
        if pthread_mutex_init(&self.gate, NULL) or init_brief(&self.lock):
            raise MemoryError

    def __dealloc__(self):
        if self.generation != fork_generation():
            return  # a copy, of what the parent's threads may be changing
        # Nobody holds any: what there still is nobody came to deregister, or NIXL has refused to.
        let_go(emptied(&self.shelf))
        pthread_mutex_destroy(&self.gate)
        pthread_mutex_destroy(&self.lock)

    def __len__(self) -> int:
        cdef Py_ssize_t count
        pthread_mutex_lock(&self.lock)
        count = self.count
        pthread_mutex_unlock(&self.lock)
        return count

    @property
    def registered_bytes(self) -> int:
        """Of all regions together."""
        cdef uint64_t nbytes
        pthread_mutex_lock(&self.lock)
        nbytes = self.nbytes
        pthread_mutex_unlock(&self.lock)
        return nbytes

    @property
    def is_busy(self) -> bool:
        """Whether a thread is at what takes the gate."""
        if pthread_mutex_trylock(&self.gate):
            return True
        pthread_mutex_unlock(&self.gate)
        return False

    @property
    def left(self) -> int:
        """How many are to be deregistered, as soon as the gate is to be had."""
        return peek_count(&self.idle_count)

    def covers(self, Regions regions not None, int mem_type) -> bool:
        """Whether each of these regions is within a registration now."""
        cdef bint covered
        if self.generation != fork_generation():
            return False
        with nogil:
            covered = self.holds(regions, mem_type)
        return covered

    cdef bint enter(self, int64_t patience) noexcept nogil:
        """Take the gate within so many nanoseconds; return whether it was to be had."""
        cdef timespec t
        # Who takes the gate deregisters what nobody holds.
        if patience <= BRIEF and peek_count(&self.idle_count) > QUICK_IDLE:
            return False
        if pthread_mutex_trylock(&self.gate) == 0:
            return True
        if patience <= BRIEF and peek_int(&self.slow):
            return False
        clock_gettime(CLOCK_REALTIME, &t)
        patience += t.tv_nsec
        t.tv_sec += patience // 1000000000
        t.tv_nsec = patience % 1000000000
        return pthread_mutex_timedlock(&self.gate, &t) == 0

    cdef void leave(self) noexcept nogil:
        pthread_mutex_unlock(&self.gate)

    cdef void _hold(self, Registration* registration) noexcept nogil:
        """Count somebody who needs a registration. Lock held."""
        registration.holders += 1
        if registration.holders == 1:
            self.count += 1
            self.nbytes += registration.row[1]
            if registration.queued:
                self.idle_count -= 1

    cdef void _queue(self, Registration* registration) noexcept nogil:
        """Have a registration that nobody needs deregistered. Lock held."""
        self.idle_count += 1
        if not registration.queued:
            registration.queued = True
            registration.next = self.idle
            self.idle = registration

    cdef int take(
        self, Regions regions, int mem_type, Held* held, bint patient, Registration** made,
        Told* told
    ) noexcept nogil:
        """Hold what holds each of these regions, made where there is nothing. Gate held.

        An existing registration is shared where NIXL would find it; else the region gets one of its
        own, which NIXL does find.

        Parameters
        ----------
        regions, mem_type
            What is needed.
        held : Held
            Takes one for each row.
        patient : bool
            Whether to register what takes long.
        made : chain of Registration
            Takes those that were made, for `own`.
        told : Told
            Takes which regions these are, or which NIXL has refused.

        Returns
        -------
        int
            0; or NIXL's status, NOT_QUICK or NO_MEMORY: then nothing has changed.
        """
        cdef Registration** found
        cdef Registration* registration
        cdef Py_ssize_t missing
        cdef Py_ssize_t i
        cdef int rc = 0
        if not have_room(held, regions.count):
            return NO_MEMORY
        found = &held.items[held.count]  # beyond its end, until they are counted
        while rc == 0:
            missing = find_all(&self.shelf, regions, mem_type, found)
            if missing == 0:
                pthread_mutex_lock(&self.lock)
                for i in range(regions.count):
                    self._hold(found[i])
                pthread_mutex_unlock(&self.lock)
                held.count += regions.count
                return 0
            # What is registered for one row may hide what another one would share: look again.
            rc = self._make(regions, mem_type, found, missing, patient, made, told)
        pthread_mutex_lock(&self.lock)
        registration = made[0]
        made[0] = NULL
        while registration is not NULL:
            if registration.holders == 0:
                self._queue(registration)
            registration = registration.fresh
        pthread_mutex_unlock(&self.lock)
        return rc

    cdef int _make(
        self, Regions regions, int mem_type, Registration** found, Py_ssize_t missing,
        bint patient, Registration** made, Told* told
    ) noexcept nogil:
        """Register the rows for which nothing was found, yet without holders. Gate held.

        Parameters and result as for `take`.
        """
        cdef Registration* one
        cdef Registration** fresh = &one
        cdef Py_ssize_t count
        cdef Py_ssize_t i
        cdef int rc = NO_MEMORY
        if missing > 1:
            fresh = <Registration**>malloc(missing * sizeof(Registration*))
            if fresh is NULL:
                return NO_MEMORY
        count = make_all(regions.rows, regions.count, mem_type, found, fresh)
        if count > 0:
            rc = self._register(fresh, count, mem_type, patient, told)
        for i in range(count):
            if rc:
                free(fresh[i])
            else:
                fresh[i].fresh = made[0]
                made[0] = fresh[i]
        if fresh != &one:
            free(fresh)
        return rc

    cdef int _register(
        self, Registration** fresh, Py_ssize_t count, int mem_type, bint patient, Told* told
    ) noexcept nogil:
        """Register regions with NIXL, sorted and each once, and have them found. Gate held."""
        cdef void* dlist = NULL
        cdef Py_ssize_t i
        cdef bint slow
        cdef int rc
        told.count = 0
        told.nbytes = 0
        for i in range(count):
            note(told, fresh[i])
        slow = count > QUICK_ROWS or (self.pins and told.nbytes > QUICK_BYTES)
        if slow and not patient:
            return NOT_QUICK
        rc = self.agent.nixl.create_reg_dlist(mem_type, &dlist)
        if rc == 0:
            for i in range(count):
                rc = self.agent.nixl.reg_dlist_add_desc(
                    dlist, fresh[i].row[0], fresh[i].row[1], fresh[i].row[2], NULL, 0
                )
                if rc:
                    break
            if rc == 0:
                rc = self.agent.enter()
            if rc == 0:
                atomic_store(&self.slow, slow)
                rc = self.agent.nixl.register_mem(self.agent.handle, dlist, NULL)
                if rc == 0:
                    pthread_mutex_lock(&self.lock)
                    if not put_in(&self.shelf, fresh, count):
                        rc = NO_MEMORY
                    pthread_mutex_unlock(&self.lock)
                    if rc:
                        self.agent.nixl.deregister_mem(self.agent.handle, dlist, NULL)
                atomic_store(&self.slow, 0)
                self.agent.leave()
            self.agent.nixl.destroy_reg_dlist(dlist)
        told.status = rc
        return rc

    cdef int cover(self, Regions regions, int mem_type, Held* held) noexcept nogil:
        """Hold every registration that holds one of these regions. Gate held.

        What holds one row after another is held once. Returns 0; or NOT_REGISTERED, where a row is
        in none, or NO_MEMORY: then none is held.
        """
        cdef Py_ssize_t i = held.count
        cdef int found = add_holders(&self.shelf, regions, mem_type, held)
        pthread_mutex_lock(&self.lock)
        while i < held.count:
            self._hold(held.items[i])
            i += 1
        pthread_mutex_unlock(&self.lock)
        return 0 if found > 0 else NO_MEMORY if found < 0 else NOT_REGISTERED

    cdef bint holds(self, Regions regions, int mem_type) noexcept nogil:
        """Whether each of these regions is within a registration that somebody needs."""
        cdef bint held
        pthread_mutex_lock(&self.lock)
        held = all_are_held(&self.shelf, regions, mem_type)
        pthread_mutex_unlock(&self.lock)
        return held

    cdef void give_up(self, Held* held, bint owned) noexcept nogil:
        """Hold none of these any more. What nobody holds is for `tidy`.

        The list is empty then; or, with `owned`, of what owned their memory, each with a reference
        that the caller has added.
        """
        cdef Registration* registration
        cdef Py_ssize_t i
        if held.count == 0:
            return
        pthread_mutex_lock(&self.lock)
        for i in range(held.count):
            registration = held.items[i]
            if owned:
                held.items[i] = <Registration*>registration.owner
            registration.holders -= 1
            if registration.holders == 0:
                self.count -= 1
                self.nbytes -= registration.row[1]
                self._queue(registration)
        if not owned:
            held.count = 0
        pthread_mutex_unlock(&self.lock)

    cdef Registration* _taken_out(self) noexcept nogil:
        """Take what is queued, and still not needed, out of the maps; return it. Gate held."""
        cdef Registration* registration
        cdef Registration* rest
        cdef Registration* chain = NULL
        cdef Py_ssize_t count = 0
        pthread_mutex_lock(&self.lock)
        registration = self.idle
        self.idle = NULL
        self.idle_count = 0
        while registration is not NULL:
            rest = registration.next
            registration.queued = False
            if registration.holders == 0:
                registration.over = True
                registration.next = chain
                chain = registration
                count += 1
            registration = rest
        take_out(&self.shelf, chain, count)
        pthread_mutex_unlock(&self.lock)
        return chain

    cdef Registration* tidy(self, Told* gone, Told* kept) noexcept nogil:
        """Deregister what nobody holds; return it, for `let_go`. Gate held.

        Parameters
        ----------
        gone, kept : Told
            Take which regions NIXL has deregistered, and which it has refused to.
        """
        cdef Registration* chain
        cdef Registration* same
        cdef Registration* rest
        cdef Registration* over = NULL
        cdef bint one_by_one = False
        cdef bint closed
        cdef int rc
        if peek_count(&self.idle_count) == 0:
            return NULL
        chain = self._taken_out()
        while chain is not NULL:
            same = split_off(&chain, one_by_one)
            rc = self._deregister(same)
            closed = rc in (AGENT_CLOSED, AGENT_FORKED)  # which deregisters everything
            if rc and not closed and same.next is not NULL:
                # NIXL looks for all before it changes anything.
                one_by_one = True
                while same is not NULL:
                    rest = same.next
                    same.next = chain
                    chain = same
                    same = rest
                continue
            if rc and not closed:
                note(kept, same)
                kept.status = rc
                if rc != NOT_FOUND:
                    self._keep(same)
                    continue
            while same is not NULL:
                rest = same.next
                if rc == 0:
                    note(gone, same)
                same.next = over
                over = same
                same = rest
        return over

    cdef int _deregister(self, Registration* chain) noexcept nogil:
        """Have NIXL deregister regions of one memory type; return its status. Gate held."""
        cdef void* dlist = NULL
        cdef int rc = self.agent.nixl.create_reg_dlist(chain.mem_type, &dlist)
        if rc:
            return rc
        while rc == 0 and chain is not NULL:
            rc = self.agent.nixl.reg_dlist_add_desc(
                dlist, chain.row[0], chain.row[1], chain.row[2], NULL, 0
            )
            chain = chain.next
        if rc == 0:
            rc = self.agent.enter()
        if rc == 0:
            rc = self.agent.nixl.deregister_mem(self.agent.handle, dlist, NULL)
            self.agent.leave()
        self.agent.nixl.destroy_reg_dlist(dlist)
        return rc

    cdef void _keep(self, Registration* registration) noexcept nogil:
        """Have who needs the region share it: NIXL has it, and may not have one twice.

        Its owner is kept, too. Where there is no memory, for good, and nobody finds it.
        """
        registration.over = False
        registration.next = NULL
        pthread_mutex_lock(&self.lock)
        put_in(&self.shelf, &registration, 1)
        pthread_mutex_unlock(&self.lock)

    cdef bint clean(self, int64_t patience) except -1:
        """Deregister what nobody holds, if the gate is to be had in time; return whether it was."""
        cdef Registration* over = NULL
        cdef Told gone, kept
        cdef bint entered = False
        if peek_count(&self.idle_count) == 0 or self.generation != fork_generation():
            return True
        memset(&gone, 0, sizeof(Told))
        memset(&kept, 0, sizeof(Told))
        with nogil:
            entered = self.enter(patience)
            if entered:
                over = self.tidy(&gone, &kept)
                self.leave()
        let_go(over)
        self.say(&gone, &kept)
        return entered

    cdef void call(self) noexcept nogil:
        """Have the reaper deregister what nobody holds, if there is something."""
        if (
            self.core is not NULL and peek_count(&self.idle_count)
            and self.generation == fork_generation()  # else nobody may ever give the lock back
        ):
            poke(self.core)

    # What is told, to Python: when all is done, since a filter of logs may raise.

    cdef int fail(self, int rc, const Told* told) except -1:
        if rc == NOT_QUICK:
            raise NotQuickError
        if rc == NO_MEMORY:
            raise MemoryError
        if rc == AGENT_CLOSED:
            raise AgentClosedError
        if rc == AGENT_FORKED:
            raise AgentForkedError
        raise RefusedError(rc, regions_of(told))

    cdef int say(self, const Told* gone, const Told* kept) except -1:
        if gone.count and self.debugging:
            self.report("deregistered", 0, regions_of(gone))
        if kept.count:
            self.report("kept", kept.status, regions_of(kept))
        return 0

    cdef int say_made(self, const Told* told) except -1:
        if told.count and self.debugging:
            self.report("registered", 0, regions_of(told))
        return 0

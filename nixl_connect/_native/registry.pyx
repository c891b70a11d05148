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
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from nixl_connect._native.agent cimport AGENT_CLOSED, AGENT_FORKED, Agent
from nixl_connect._native.atomic cimport atomic_store, peek_count, peek_int
from nixl_connect._native.core cimport poke
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.posix cimport (
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
from nixl_connect._native.ranges cimport (
    Range,
    Walk,
    add_all,
    clear,
    keep_if,
    neighbour_of,
    next_holder,
    take_away,
)

from nixl_connect._native.agent import AgentClosedError, AgentForkedError
from nixl_connect._native.lock import NotQuickError


cdef enum:
    # Registering more than this for the first time takes long: pages are pinned one by one.
    QUICK_BYTES = 1024 * 1024
    QUICK_ROWS = 64
    # More of them are not deregistered on whichever thread comes by.
    QUICK_IDLE = 256
    # More that leave a map at once are swept out of it.
    SWEEP = 32
    # NIXL's status of what is not registered.
    NOT_FOUND = -6


class RefusedError(Exception):
    """NIXL has refused to register memory: its status, and which regions, see `Registry`."""


cdef int _by_row(const void* a, const void* b) noexcept nogil:
    """Order registrations by device, start and end."""
    cdef const uint64_t* x = (<Registration**>a)[0].row
    cdef const uint64_t* y = (<Registration**>b)[0].row
    if x[2] != y[2]:
        return -1 if x[2] < y[2] else 1
    if x[0] != y[0]:
        return -1 if x[0] < y[0] else 1
    if x[1] != y[1]:
        return -1 if x[1] < y[1] else 1
    return 0


cdef int _by_row_and_wish(const void* a, const void* b) noexcept nogil:
    """The same, and then by the rows for which they were made."""
    cdef int order = _by_row(a, b)
    if order:
        return order
    return -1 if (
        (<Registration**>a)[0].wanted_for < (<Registration**>b)[0].wanted_for
    ) else 1


cdef bint _is_wanted(void* registration) noexcept nogil:
    return not (<Registration*>registration).over


cdef bint _room(Held* held, Py_ssize_t more) noexcept nogil:
    """Have room for so many more; False where there is no memory."""
    cdef Py_ssize_t capacity
    cdef Registration** items
    if held.items is NULL:
        held.items = held.few
        held.capacity = 4
    if held.count + more <= held.capacity:
        return True
    capacity = max(2 * held.capacity, held.count + more)
    if held.items == held.few:
        items = <Registration**>malloc(capacity * sizeof(Registration*))
        if items is not NULL:
            memcpy(items, held.few, held.count * sizeof(Registration*))
    else:
        items = <Registration**>realloc(held.items, capacity * sizeof(Registration*))
    if items is NULL:
        return False
    held.items = items
    held.capacity = capacity
    return True


cdef void free_held(Held* held) noexcept nogil:
    """Free the list, which is empty."""
    if held.items != held.few:
        free(held.items)
    held.items = NULL
    held.capacity = 0


cdef void _note(Told* told, const Registration* registration) noexcept nogil:
    """Count a region among those to be told of."""
    if told.count == 0:
        told.mem_type = registration.mem_type
        memcpy(told.first, registration.row, sizeof(told.first))
    told.count += 1
    told.nbytes += registration.row[1]


cdef tuple _regions_of(const Told* told):
    row = told.first[0], told.first[1], told.first[2]
    return told.mem_type, told.count, told.nbytes, row


cdef void own(Registration* made, list owners) noexcept:
    """Have what was just made keep its memory alive. With the GIL; whoever made it holds it.

    Parameters
    ----------
    made : chain of Registration
        From `Registry.take`.
    owners : list or None
        Of the first rows, or of all.
    """
    cdef Py_ssize_t count = 0 if owners is None else len(owners)
    while made is not NULL:
        if made.wanted_for < count:
            owner = owners[made.wanted_for]
            Py_INCREF(owner)
            made.owner = <PyObject*>owner
        made = made.fresh


cdef void let_go(Registration* chain) noexcept:
    """Free what has been deregistered, and its memory. With the GIL, and no lock: memory may have
    finalizers."""
    cdef Registration* registration
    while chain is not NULL:
        registration = chain
        chain = registration.next
        Py_XDECREF(registration.described)
        Py_XDECREF(registration.owner)
        free(registration)


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
        if pthread_mutex_init(&self.gate, NULL) or pthread_mutex_init(&self.lock, NULL):
            raise MemoryError

    def __dealloc__(self):
        cdef Registration* registration
        cdef Registration* chain = NULL
        cdef Py_ssize_t i, j
        cdef int g
        if self.generation != fork_generation():
            return  # a copy, of what the parent's threads may be changing
        # Nobody holds any: what there still is nobody came to deregister, or NIXL has refused to.
        for i in range(self.map_count):
            for g in range(self.maps[i].ranges.count):
                for j in range(self.maps[i].ranges.classes[g].count):
                    registration = <Registration*>self.maps[i].ranges.classes[g].ranges[j].value
                    registration.next = chain
                    chain = registration
            clear(&self.maps[i].ranges)
            free(self.maps[i])
        free(self.maps)
        let_go(chain)
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

    cdef Map* _map_of(self, int mem_type, uint64_t device) noexcept nogil:
        """Lock held."""
        cdef Py_ssize_t i
        for i in range(self.map_count):
            if self.maps[i].device == device and self.maps[i].mem_type == mem_type:
                return self.maps[i]
        return NULL

    cdef bint _add(self, Registration** made, Py_ssize_t count) noexcept nogil:
        """Have registrations found: sorted, none of them is there. False where there is no memory;
        some may be there then. Lock held."""
        cdef Range one
        cdef Range* fresh = &one
        cdef Map* known
        cdef Map** maps
        cdef Py_ssize_t i
        cdef Py_ssize_t first = 0
        if count > 1:
            fresh = <Range*>malloc(count * sizeof(Range))
            if fresh is NULL:
                return False
        for i in range(count):
            fresh[i].start = made[i].row[0]
            fresh[i].end = made[i].row[0] + made[i].row[1]
            fresh[i].value = made[i]
        i = 0
        while i < count:
            known = self._map_of(made[i].mem_type, made[i].row[2])
            if known is NULL:
                maps = <Map**>realloc(self.maps, (self.map_count + 1) * sizeof(Map*))
                if maps is NULL:
                    break
                self.maps = maps
                known = <Map*>calloc(1, sizeof(Map))
                if known is NULL:
                    break
                known.mem_type = made[i].mem_type
                known.device = made[i].row[2]
                self.maps[self.map_count] = known
                self.map_count += 1
            first = i
            while i < count and made[i].row[2] == known.device:
                i += 1
            if not add_all(&known.ranges, &fresh[first], i - first):
                i = first
                break
        if fresh != &one:
            free(fresh)
        return i == count

    cdef Py_ssize_t _share(
        self, const uint64_t* rows, Py_ssize_t count, int mem_type, Held* held
    ) noexcept nogil:
        """Hold what NIXL would find for each row. Gate held; there is room in `held`.

        It looks no further than at the neighbours of a region in its list, and so may overlook one
        that covers it.

        Returns for how many it would find none; then none is held, and beyond the end of `held`
        there is NULL for each of these.
        """
        cdef Registration** found = &held.items[held.count]
        cdef Map* known = NULL
        cdef Py_ssize_t missing = 0
        cdef Py_ssize_t i
        cdef const uint64_t* row
        for i in range(count):
            row = &rows[3 * i]
            if i == 0 or row[2] != rows[3 * i - 1]:
                known = self._map_of(mem_type, row[2])
            found[i] = NULL
            if known is not NULL:
                found[i] = <Registration*>neighbour_of(&known.ranges, row[0], row[0] + row[1])
            if found[i] is NULL:
                missing += 1
        if missing == 0:
            pthread_mutex_lock(&self.lock)
            for i in range(count):
                self._hold(found[i])
            pthread_mutex_unlock(&self.lock)
            held.count += count
        return missing

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
        cdef Py_ssize_t missing
        cdef Registration* registration
        cdef int rc = 0
        if not _room(held, regions.count):
            return NO_MEMORY
        while True:
            missing = self._share(regions.rows, regions.count, mem_type, held)
            if missing == 0:
                return 0
            # What is registered for one row may hide what another one would share: look again.
            rc = self._make(
                regions.rows, regions.count, mem_type, held, missing, patient, made, told
            )
            if rc:
                break
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
        self, const uint64_t* rows, Py_ssize_t count, int mem_type, Held* held,
        Py_ssize_t missing, bint patient, Registration** made, Told* told
    ) noexcept nogil:
        """Register the rows for which `_share` has found nothing, yet without holders. Gate held.

        Parameters and result as for `take`.
        """
        cdef Registration* one
        cdef Registration** fresh = &one
        cdef Registration** found = &held.items[held.count]
        cdef Py_ssize_t n = 0
        cdef Py_ssize_t unique = 0
        cdef Py_ssize_t i
        cdef bint sorted = True
        cdef int rc = 0
        if missing > 1:
            fresh = <Registration**>malloc(missing * sizeof(Registration*))
            if fresh is NULL:
                return NO_MEMORY
        for i in range(count):
            if found[i] is not NULL:
                continue
            fresh[n] = <Registration*>calloc(1, sizeof(Registration))
            if fresh[n] is NULL:
                rc = NO_MEMORY
                break
            memcpy(fresh[n].row, &rows[3 * i], sizeof(fresh[n].row))
            fresh[n].mem_type = mem_type
            fresh[n].wanted_for = i
            if n and _by_row(&fresh[n - 1], &fresh[n]) >= 0:
                sorted = False
            n += 1
        if rc == 0:
            # No region twice: NIXL would crash when the second is deregistered.
            if not sorted:
                qsort(fresh, n, sizeof(Registration*), _by_row_and_wish)
            for i in range(n):
                if unique and _by_row(&fresh[unique - 1], &fresh[i]) == 0:
                    free(fresh[i])
                else:
                    fresh[unique] = fresh[i]
                    unique += 1
            n = unique
            rc = self._register(fresh, n, mem_type, patient, told)
        for i in range(n):
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
        cdef Map* known
        cdef bint slow
        cdef int rc
        told.count = 0
        told.nbytes = 0
        for i in range(count):
            _note(told, fresh[i])
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
                    if not self._add(fresh, count):
                        # Take out what was put in, and undo it all.
                        for i in range(count):
                            known = self._map_of(mem_type, fresh[i].row[2])
                            if known is not NULL:
                                take_away(
                                    &known.ranges, fresh[i].row[0],
                                    fresh[i].row[0] + fresh[i].row[1],
                                )
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
        cdef Py_ssize_t before = held.count
        cdef Py_ssize_t last = before
        cdef Py_ssize_t fresh
        cdef Py_ssize_t i, j
        cdef const uint64_t* row
        cdef Map* known = NULL
        cdef Walk walk
        cdef void* holder
        cdef int rc = 0
        for i in range(regions.count):
            row = &regions.rows[3 * i]
            if i == 0 or row[2] != regions.rows[3 * i - 1]:
                known = self._map_of(mem_type, row[2])
            fresh = held.count
            if known is not NULL:
                memset(&walk, 0, sizeof(Walk))
                holder = next_holder(&known.ranges, &walk, row[0], row[0] + row[1])
                while holder is not NULL:
                    if not _room(held, 1):
                        rc = NO_MEMORY
                        break
                    held.items[held.count] = <Registration*>holder
                    held.count += 1
                    holder = next_holder(&known.ranges, &walk, row[0], row[0] + row[1])
            if rc == 0 and held.count == fresh:
                rc = NOT_REGISTERED
            if rc:
                break
            # The same as for the row before?
            if i and held.count - fresh == fresh - last:
                j = 0
                while j < fresh - last and held.items[last + j] == held.items[fresh + j]:
                    j += 1
                if j == fresh - last:
                    held.count = fresh
                    continue
            last = fresh
        if rc:
            held.count = before
        pthread_mutex_lock(&self.lock)
        for i in range(before, held.count):
            self._hold(held.items[i])
        pthread_mutex_unlock(&self.lock)
        return rc

    cdef bint holds(self, Regions regions, int mem_type) noexcept nogil:
        """Whether each of these regions is within a registration that somebody needs."""
        cdef Py_ssize_t i
        cdef const uint64_t* row
        cdef Map* known = NULL
        cdef Walk walk
        cdef Registration* holder
        cdef bint all_are = True
        pthread_mutex_lock(&self.lock)
        for i in range(regions.count):
            row = &regions.rows[3 * i]
            if i == 0 or row[2] != regions.rows[3 * i - 1]:
                known = self._map_of(mem_type, row[2])
            memset(&walk, 0, sizeof(Walk))
            holder = NULL
            while known is not NULL:
                holder = <Registration*>next_holder(
                    &known.ranges, &walk, row[0], row[0] + row[1]
                )
                if holder is NULL or holder.holders:
                    break
            if holder is NULL:
                all_are = False
                break
        pthread_mutex_unlock(&self.lock)
        return all_are

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
        cdef Py_ssize_t i
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
        if count > SWEEP:
            for i in range(self.map_count):
                keep_if(&self.maps[i].ranges, _is_wanted)
        else:
            registration = chain
            while registration is not NULL:
                take_away(
                    &self._map_of(registration.mem_type, registration.row[2]).ranges,
                    registration.row[0], registration.row[0] + registration.row[1],
                )
                registration = registration.next
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
        cdef Registration* others
        cdef Registration* rest
        cdef Registration* over = NULL
        cdef void* dlist
        cdef int mem_type
        cdef int rc
        cdef bint one_by_one = False
        if peek_count(&self.idle_count) == 0:
            return NULL
        chain = self._taken_out()
        while chain is not NULL:
            # Those of one memory type, or one, at a time.
            mem_type = chain.mem_type
            same = others = NULL
            dlist = NULL
            rc = self.agent.nixl.create_reg_dlist(mem_type, &dlist)
            while chain is not NULL and not (one_by_one and same is not NULL):
                rest = chain.next
                if chain.mem_type != mem_type:
                    chain.next = others
                    others = chain
                else:
                    chain.next = same
                    same = chain
                    if rc == 0:
                        rc = self.agent.nixl.reg_dlist_add_desc(
                            dlist, chain.row[0], chain.row[1], chain.row[2], NULL, 0
                        )
                chain = rest
            if not one_by_one:
                chain = others
            if rc == 0:
                rc = self.agent.enter()
                if rc == 0:
                    rc = self.agent.nixl.deregister_mem(self.agent.handle, dlist, NULL)
                    self.agent.leave()
            if dlist is not NULL:
                self.agent.nixl.destroy_reg_dlist(dlist)
            if rc and rc not in (AGENT_CLOSED, AGENT_FORKED) and same.next is not NULL:
                # NIXL looks for all before it changes anything.
                one_by_one = True
                while same is not NULL:
                    rest = same.next
                    same.next = chain
                    chain = same
                    same = rest
                continue
            if rc and rc not in (AGENT_CLOSED, AGENT_FORKED):
                _note(kept, same)
                kept.status = rc
                if rc != NOT_FOUND:
                    self._keep(same)
                    continue
            while same is not NULL:
                rest = same.next
                if rc == 0:
                    _note(gone, same)
                same.next = over
                over = same
                same = rest
        return over

    cdef void _keep(self, Registration* registration) noexcept nogil:
        """Have who needs the region share it: NIXL has it, and may not have one twice.

        Its owner is kept, too. Where there is no memory, for good, and nobody finds it.
        """
        registration.over = False
        registration.next = NULL
        pthread_mutex_lock(&self.lock)
        self._add(&registration, 1)
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
        raise RefusedError(rc, _regions_of(told))

    cdef int say(self, const Told* gone, const Told* kept) except -1:
        if gone.count and self.debugging:
            self.report("deregistered", 0, _regions_of(gone))
        if kept.count:
            self.report("kept", kept.status, _regions_of(kept))
        return 0

    cdef int say_made(self, const Told* told) except -1:
        if told.count and self.debugging:
            self.report("registered", 0, _regions_of(told))
        return 0

"""Registrations, found by what they hold: to be used under their registry's locks."""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

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
from nixl_connect._native.registration cimport have_room

cdef enum:
    # More that leave at once are swept out.
    SWEEP = 32


cdef Map* _map_of(const Shelf* shelf, int mem_type, uint64_t device) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(shelf.count):
        if shelf.maps[i].device == device and shelf.maps[i].mem_type == mem_type:
            return shelf.maps[i]
    return NULL


cdef Map* _made_map_of(Shelf* shelf, int mem_type, uint64_t device) noexcept nogil:
    """Return the map, made if need be; NULL where there is no memory."""
    cdef Map* known = _map_of(shelf, mem_type, device)
    cdef Map** maps
    if known is not NULL:
        return known
    maps = <Map**>realloc(shelf.maps, (shelf.count + 1) * sizeof(Map*))
    if maps is NULL:
        return NULL
    shelf.maps = maps
    known = <Map*>calloc(1, sizeof(Map))
    if known is not NULL:
        known.mem_type = mem_type
        known.device = device
        shelf.maps[shelf.count] = known
        shelf.count += 1
    return known


cdef bint _is_wanted(void* registration) noexcept nogil:
    return not (<Registration*>registration).over


cdef void _take_one(Shelf* shelf, Registration* registration) noexcept nogil:
    """Take a registration out, if it is there."""
    cdef Map* known = _map_of(shelf, registration.mem_type, registration.row[2])
    cdef uint64_t start = registration.row[0]
    if known is not NULL:
        take_away(&known.ranges, start, start + registration.row[1])


cdef bint put_in(Shelf* shelf, Registration** made, Py_ssize_t count) noexcept nogil:
    """Put in registrations of one memory type, sorted, none of which is there.

    False, and none, where there is no memory.
    """
    cdef Range one
    cdef Range* fresh = &one
    cdef Map* known
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t first = 0
    if count > 1:
        fresh = <Range*>malloc(count * sizeof(Range))
        if fresh is NULL:
            return False
    while first < count:
        known = _made_map_of(shelf, made[first].mem_type, made[first].row[2])
        if known is NULL:
            break
        i = first
        while i < count and made[i].row[2] == known.device:
            fresh[i].start = made[i].row[0]
            fresh[i].end = made[i].row[0] + made[i].row[1]
            fresh[i].value = made[i]
            i += 1
        if not add_all(&known.ranges, &fresh[first], i - first):
            break
        first = i
    if fresh != &one:
        free(fresh)
    if first == count:
        return True
    for i in range(first):
        _take_one(shelf, made[i])
    return False


cdef void take_out(Shelf* shelf, Registration* chain, Py_ssize_t count) noexcept nogil:
    """Take out so many registrations, which are over."""
    cdef Py_ssize_t i
    if count > SWEEP:
        for i in range(shelf.count):
            keep_if(&shelf.maps[i].ranges, _is_wanted)
        return
    while chain is not NULL:
        _take_one(shelf, chain)
        chain = chain.next


cdef Py_ssize_t find_all(
    const Shelf* shelf, Regions regions, int mem_type, Registration** found
) noexcept nogil:
    """Find what NIXL would find for each row, or NULL; return how many of these there are.

    It looks no further than at the neighbours of a region in its list, and so may overlook one that
    covers it.
    """
    cdef Map* known = NULL
    cdef Py_ssize_t missing = 0
    cdef Py_ssize_t i
    cdef const uint64_t* row
    for i in range(regions.count):
        row = &regions.rows[3 * i]
        if i == 0 or row[2] != regions.rows[3 * i - 1]:
            known = _map_of(shelf, mem_type, row[2])
        found[i] = NULL
        if known is not NULL:
            found[i] = <Registration*>neighbour_of(&known.ranges, row[0], row[0] + row[1])
        if found[i] is NULL:
            missing += 1
    return missing


cdef int _add_holders_of(const Map* known, const uint64_t* row, Held* held) noexcept nogil:
    """Add what holds a row, uncounted; return whether there is memory for it."""
    cdef Walk walk
    cdef void* holder = NULL
    memset(&walk, 0, sizeof(Walk))
    if known is not NULL:
        holder = next_holder(&known.ranges, &walk, row[0], row[0] + row[1])
    while holder is not NULL:
        if not have_room(held, 1):
            return False
        held.items[held.count] = <Registration*>holder
        held.count += 1
        holder = next_holder(&known.ranges, &walk, row[0], row[0] + row[1])
    return True


cdef int add_holders(
    const Shelf* shelf, Regions regions, int mem_type, Held* held
) noexcept nogil:
    """Add all that hold these rows to a list, uncounted; what holds one after another once.

    Returns 1; 0, and nothing is added, where a row is in none; or -1, where there is no memory.
    """
    cdef Py_ssize_t before = held.count
    cdef Py_ssize_t last = before
    cdef Py_ssize_t fresh
    cdef Py_ssize_t i, j
    cdef const uint64_t* row
    cdef Map* known = NULL
    for i in range(regions.count):
        row = &regions.rows[3 * i]
        if i == 0 or row[2] != regions.rows[3 * i - 1]:
            known = _map_of(shelf, mem_type, row[2])
        fresh = held.count
        if not _add_holders_of(known, row, held):
            held.count = before
            return -1
        if held.count == fresh:
            held.count = before
            return 0
        # The same as for the row before?
        if i and held.count - fresh == fresh - last:
            j = 0
            while j < fresh - last and held.items[last + j] == held.items[fresh + j]:
                j += 1
            if j == fresh - last:
                held.count = fresh
                continue
        last = fresh
    return 1


cdef bint all_are_held(const Shelf* shelf, Regions regions, int mem_type) noexcept nogil:
    """Whether each of these rows is within a registration that somebody needs."""
    cdef Py_ssize_t i
    cdef const uint64_t* row
    cdef Map* known = NULL
    cdef Walk walk
    cdef Registration* holder
    for i in range(regions.count):
        row = &regions.rows[3 * i]
        if i == 0 or row[2] != regions.rows[3 * i - 1]:
            known = _map_of(shelf, mem_type, row[2])
        memset(&walk, 0, sizeof(Walk))
        holder = NULL
        while known is not NULL:
            holder = <Registration*>next_holder(&known.ranges, &walk, row[0], row[0] + row[1])
            if holder is NULL or holder.holders:
                break
        if holder is NULL:
            return False
    return True


cdef Registration* emptied(Shelf* shelf) noexcept nogil:
    """Empty it; return what was in it, as a chain."""
    cdef Registration* registration
    cdef Registration* chain = NULL
    cdef Ranges* ranges
    cdef Py_ssize_t i, j
    cdef int g
    for i in range(shelf.count):
        ranges = &shelf.maps[i].ranges
        for g in range(ranges.count):
            for j in range(ranges.classes[g].count):
                registration = <Registration*>ranges.classes[g].ranges[j].value
                registration.next = chain
                chain = registration
        clear(ranges)
        free(shelf.maps[i])
    free(shelf.maps)
    shelf.maps = NULL
    shelf.count = 0
    return chain

"""One region that is registered with NIXL, and lists of such."""

from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy


cdef bint have_room(Held* held, Py_ssize_t more) noexcept nogil:
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


cdef Py_ssize_t make_all(
    const uint64_t* rows, Py_ssize_t count, int mem_type, Registration** found,
    Registration** fresh
) noexcept nogil:
    """Make a registration for each row for which `found` has none; return how many.

    They are sorted, and each region is there once: NIXL would crash when a second registration of
    it is taken back. Returns -1 where there is no memory.
    """
    cdef Py_ssize_t n = 0
    cdef Py_ssize_t unique = 0
    cdef Py_ssize_t i
    cdef bint sorted = True
    for i in range(count):
        if found[i] is not NULL:
            continue
        fresh[n] = <Registration*>calloc(1, sizeof(Registration))
        if fresh[n] is NULL:
            while n:
                n -= 1
                free(fresh[n])
            return -1
        memcpy(fresh[n].row, &rows[3 * i], sizeof(fresh[n].row))
        fresh[n].mem_type = mem_type
        fresh[n].wanted_for = i
        if n and _by_row(&fresh[n - 1], &fresh[n]) >= 0:
            sorted = False
        n += 1
    if not sorted:
        qsort(fresh, n, sizeof(Registration*), _by_row_and_wish)
    for i in range(n):
        if unique and _by_row(&fresh[unique - 1], &fresh[i]) == 0:
            free(fresh[i])
        else:
            fresh[unique] = fresh[i]
            unique += 1
    return unique


cdef Registration* split_off(Registration** chain, bint one) noexcept nogil:
    """Take those of the first one's memory type out of a chain, or the first `one` alone."""
    cdef Registration* taken = chain[0]
    cdef Registration* last = taken
    cdef Registration** link
    chain[0] = taken.next
    taken.next = NULL
    link = chain
    while not one and link[0] is not NULL:
        if link[0].mem_type == taken.mem_type:
            last.next = link[0]
            last = link[0]
            link[0] = last.next
            last.next = NULL
        else:
            link = &link[0].next
    return taken


cdef void note(Told* told, const Registration* registration) noexcept nogil:
    """Count a region among those to be told of."""
    if told.count == 0:
        told.mem_type = registration.mem_type
        memcpy(told.first, registration.row, sizeof(told.first))
    told.count += 1
    told.nbytes += registration.row[1]


cdef tuple regions_of(const Told* told):
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

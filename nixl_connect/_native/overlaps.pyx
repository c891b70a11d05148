"""Whether rows overlap: destinations with each other, or with sources that are in their process.

Nobody knows in which order, or in what pieces, a transfer moves its bytes. So it is anybody's guess
what ends up where two rows write, or where one writes and another reads.

Rows come in rising order more often than not, which one look at each tells. Others are sorted,
digit by digit: a hundred thousand take a few milliseconds.
"""

from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from nixl_connect._native.packing cimport Regions

cdef extern from *:
    """
    static inline int nc_lowest_bit(uint64_t n) { return __builtin_ctzll(n); }
    """
    int lowest_bit "nc_lowest_bit"(uint64_t n) nogil

cdef enum:
    # Of a number, at a time: so many counters stay in the cache.
    DIGIT_BITS = 11
    DIGITS = 1 << DIGIT_BITS
    # Columns of a row.
    START = 0
    LENGTH = 1
    DEVICE = 2


cdef struct Key:
    uint64_t value              # by which to sort
    Py_ssize_t row


cdef struct Span:
    uint64_t start
    uint64_t end


cdef struct Table:
    const uint64_t* rows
    Py_ssize_t count
    Key* keys                   # by device and start; NULL where the rows are in that order
    # Of all rows, which then are of one device, and their starts the keys' values; 0 where they
    # differ. To read rows in another order than they are in costs more than to sort their keys.
    uint64_t length


cdef struct Place:
    uint64_t device
    uint64_t start
    uint64_t end


cdef Place _place(const Table* table, Py_ssize_t i) noexcept nogil:
    """Return where the row is that is at a place in the order."""
    cdef uint64_t start
    cdef const uint64_t* row
    if table.length:
        start = table.keys[i].value
        return Place(table.rows[DEVICE], start, start + table.length)
    row = &table.rows[3 * (i if table.keys is NULL else table.keys[i].row)]
    return Place(row[DEVICE], row[START], row[START] + row[LENGTH])


cdef Py_ssize_t _number(const Table* table, Py_ssize_t i) noexcept nogil:
    return i if table.keys is NULL else table.keys[i].row


cdef bint _rises(const uint64_t* rows, Py_ssize_t count) noexcept nogil:
    """Whether rows are in order."""
    cdef Py_ssize_t _i
    cdef const uint64_t* row = rows
    for _i in range(1, count):
        if row[3 + DEVICE] != row[DEVICE]:
            if row[3 + DEVICE] < row[DEVICE]:
                return False
        elif row[3 + START] < row[START]:
            return False
        row += 3
    return True


cdef void _sort_by_digit(
    const Key* keys, Key* out, Py_ssize_t count, int shift, size_t* places
) noexcept nogil:
    """Sort by one digit; keys with the same stay in the order that they are in."""
    cdef Py_ssize_t i
    cdef size_t before = 0
    cdef size_t number
    memset(places, 0, DIGITS * sizeof(size_t))
    for i in range(count):
        places[(keys[i].value >> shift) & (DIGITS - 1)] += 1
    for i in range(DIGITS):
        number = places[i]
        places[i] = before
        before += number
    for i in range(count):
        number = (keys[i].value >> shift) & (DIGITS - 1)
        out[places[number]] = keys[i]
        places[number] += 1


cdef bint _sort_by_column(Table* table, Key** spare, int column, size_t* places) noexcept nogil:
    """Sort by one number of the rows; return whether they differ in it."""
    cdef Py_ssize_t i
    cdef int shift
    cdef bint differ
    cdef uint64_t varying = 0
    for i in range(table.count):
        varying |= table.rows[3 * i + column] ^ table.rows[column]
    if varying:
        for i in range(table.count):
            table.keys[i].value = table.rows[3 * table.keys[i].row + column]
    differ = varying != 0
    while varying:
        shift = lowest_bit(varying)
        _sort_by_digit(table.keys, spare[0], table.count, shift, places)
        table.keys, spare[0] = spare[0], table.keys
        varying &= ~(<uint64_t>(DIGITS - 1) << shift)
    return differ


cdef uint64_t _length(const Table* table) noexcept nogil:
    """Return the length of all rows, or 0 where they differ."""
    cdef Py_ssize_t i
    for i in range(1, table.count):
        if table.rows[3 * i + LENGTH] != table.rows[LENGTH]:
            return 0
    return table.rows[LENGTH]


cdef int _sort(Table* table, Key** spare) noexcept nogil:
    """Put a table's rows into order; -1 where there is no memory to do so.

    `spare` is room for as many keys again, allocated here where there is none. It is the caller's,
    and so are the table's keys, whatever comes of it.
    """
    cdef Py_ssize_t i
    cdef bint starts
    cdef bint devices
    cdef size_t[DIGITS] places
    if _rises(table.rows, table.count):
        return 0
    table.keys = <Key*>malloc(table.count * sizeof(Key))
    if spare[0] is NULL:
        spare[0] = <Key*>malloc(table.count * sizeof(Key))
    if table.keys is NULL or spare[0] is NULL:
        return -1
    for i in range(table.count):
        table.keys[i].row = i
    # What comes first in the order is sorted by last.
    starts = _sort_by_column(table, spare, START, places)
    devices = _sort_by_column(table, spare, DEVICE, places)
    if starts and not devices:
        table.length = _length(table)
    return 0


cdef bint _ends_before(Place row, Place other) noexcept nogil:
    """Whether a row ends where another begins, or earlier in the order."""
    if row.device != other.device:
        return row.device < other.device
    return row.end <= other.start


cdef Py_ssize_t _first_within(const Table* table) noexcept nogil:
    """Return the place in the order of the first row that overlaps the one before it, or 0."""
    cdef Py_ssize_t i
    cdef Place row
    cdef Place last
    if table.count == 0:
        return 0
    last = _place(table, 0)
    for i in range(1, table.count):
        row = _place(table, i)
        if not _ends_before(last, row):
            return i
        last = row
    return 0


cdef Span _span(const Table* table) noexcept nogil:
    """Return from where to where a table's rows go, whatever their devices."""
    cdef Span span = Span(UINT64_MAX, 0)
    cdef const uint64_t* row
    cdef Py_ssize_t i
    for i in range(table.count):
        row = &table.rows[3 * i]
        span.start = min(span.start, row[START])
        span.end = max(span.end, row[START] + row[LENGTH])
    return span


cdef bint _are_apart(const Table* one, const Table* other) noexcept nogil:
    """Whether all rows of one table lie above those of another, as those of two arrays do."""
    cdef Span mine = _span(one)
    cdef Span its = _span(other)
    return mine.end <= its.start or its.end <= mine.start


cdef bint _first_between(
    const Table* sources, const Table* targets, Py_ssize_t* source, Py_ssize_t* target
) noexcept nogil:
    """Find the places of a source and a target that overlap, but for a row that is both."""
    cdef Py_ssize_t i
    cdef Py_ssize_t j = 0
    cdef Place row
    cdef Place other
    if sources.count == 0:
        return False
    other = _place(targets, 0)
    for i in range(sources.count):
        row = _place(sources, i)
        while _ends_before(other, row):
            j += 1
            if j == targets.count:
                return False
            other = _place(targets, j)
        if not _ends_before(row, other) and not (
            # As long as its target, which others keep clear of: no other target is met.
            _number(sources, i) == _number(targets, j) and row.start == other.start
        ):
            source[0], target[0] = i, j
            return True
    return False


cpdef object within(Regions rows):
    """Return the numbers of two rows that overlap, if any do.

    Raises
    ------
    MemoryError
        There is none to sort the rows.
    """
    cdef Table table = Table(rows.rows, rows.count, NULL, 0)
    cdef Key* spare = NULL
    cdef Py_ssize_t i = 0
    cdef int rc
    with nogil:
        rc = _sort(&table, &spare)
        if rc == 0:
            i = _first_within(&table)
    try:
        if rc:
            raise MemoryError
        return (_number(&table, i - 1), _number(&table, i)) if i else None
    finally:
        free(table.keys)
        free(spare)


cpdef object between(Regions sources, Regions targets):
    """Return the numbers of a source and a target that overlap, if any do.

    A source that is its own target, of the same number, does not count.

    Parameters
    ----------
    sources : Regions
        Each as long as its target. They may overlap each other.
    targets : Regions
        Of which none overlap.

    Raises
    ------
    MemoryError
        There is none to sort the rows.
    """
    if sources.count != targets.count:
        raise ValueError(f"{sources.count} rows and {targets.count}")
    cdef Table here = Table(sources.rows, sources.count, NULL, 0)
    cdef Table there = Table(targets.rows, targets.count, NULL, 0)
    cdef Key* spare = NULL
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j = 0
    cdef bint found = False
    cdef int rc = 0
    with nogil:
        if not _are_apart(&here, &there):
            rc = _sort(&here, &spare) or _sort(&there, &spare)
            if rc == 0:
                found = _first_between(&here, &there, &i, &j)
    try:
        if rc:
            raise MemoryError
        return (_number(&here, i), _number(&there, j)) if found else None
    finally:
        free(here.keys)
        free(there.keys)
        free(spare)

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


cdef const uint64_t* _row(const Table* table, Py_ssize_t i) noexcept nogil:
    """Return the row that is at a place in the order."""
    return &table.rows[3 * (i if table.keys is NULL else table.keys[i].row)]


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


cdef void _sort_by_column(Table* table, Key** spare, int column, size_t* places) noexcept nogil:
    """Sort by one number of the rows."""
    cdef Py_ssize_t i
    cdef int shift
    cdef uint64_t varying = 0
    for i in range(table.count):
        varying |= table.rows[3 * i + column] ^ table.rows[column]
    if varying:
        for i in range(table.count):
            table.keys[i].value = table.rows[3 * table.keys[i].row + column]
    while varying:
        shift = lowest_bit(varying)
        _sort_by_digit(table.keys, spare[0], table.count, shift, places)
        table.keys, spare[0] = spare[0], table.keys
        varying &= ~(<uint64_t>(DIGITS - 1) << shift)


cdef int _sort(Table* table, Key** spare) noexcept nogil:
    """Put a table's rows into order; -1 where there is no memory to do so.

    `spare` is room for as many keys again, allocated here where there is none. It is the caller's,
    and so are the table's keys, whatever comes of it.
    """
    cdef Py_ssize_t i
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
    _sort_by_column(table, spare, START, places)
    _sort_by_column(table, spare, DEVICE, places)
    return 0


cdef bint _ends_before(const uint64_t* row, const uint64_t* other) noexcept nogil:
    """Whether a row ends where another begins, or earlier in the order."""
    if row[DEVICE] != other[DEVICE]:
        return row[DEVICE] < other[DEVICE]
    return row[START] + row[LENGTH] <= other[START]


cdef Py_ssize_t _first_within(const Table* table) noexcept nogil:
    """Return the place in the order of the first row that overlaps the one before it, or 0."""
    cdef Py_ssize_t i
    for i in range(1, table.count):
        if not _ends_before(_row(table, i - 1), _row(table, i)):
            return i
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
    cdef const uint64_t* row
    cdef const uint64_t* other
    for i in range(sources.count):
        row = _row(sources, i)
        while j < targets.count and _ends_before(_row(targets, j), row):
            j += 1
        if j == targets.count:
            return False
        other = _row(targets, j)
        if not _ends_before(row, other) and not (
            # As long as its target, which others keep clear of: no other target is met.
            _number(sources, i) == _number(targets, j) and row[START] == other[START]
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
    cdef Table table = Table(rows.rows, rows.count, NULL)
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
    cdef Table here = Table(sources.rows, sources.count, NULL)
    cdef Table there = Table(targets.rows, targets.count, NULL)
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

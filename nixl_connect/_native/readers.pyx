"""Reads many descriptors as rows: what `rows` writes, and that alone.

Whatever is spelled in another way, or wrong, is left to whoever asks, who reads every form and says
what is wrong. What is read comes from strangers.

All rows are of one kind of device. Its name is returned as ``b"cpu"``, or as ``b"cuda:"``, say,
which the number of each row follows.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcmp

from nixl_connect._native.packing cimport Regions, table_of

cdef enum:
    SHORTEST_JSON = 33      # {"device":"cpu","ptr":1,"size":1}
    SHORTEST_PACKED = 7
    DEVICE_DIGITS = 5

# Kinds of devices, as their names are found.
cdef enum Kind:
    NONE = 0
    CPU = 1
    CUDA = 2
    XPU = 3

_NAMES = (b"", b"cpu", b"cuda:", b"xpu:")

# What is left of a text.
cdef struct Rest:
    const char* at
    const char* end


cdef void _skip_space(Rest* rest) noexcept nogil:
    while rest.at < rest.end and rest.at[0] in b" \n\r\t":
        rest.at += 1


cdef bint _has(Rest* rest, const char* text, Py_ssize_t size) noexcept nogil:
    """Whether this comes next; it is passed."""
    if rest.end - rest.at < size or memcmp(rest.at, text, size):
        return False
    rest.at += size
    return True


cdef bint _token(Rest* rest, const char* text, Py_ssize_t size) noexcept nogil:
    """Whether this comes next, with space around it or without."""
    _skip_space(rest)
    if not _has(rest, text, size):
        return False
    _skip_space(rest)
    return True


cdef bint _number(Rest* rest, uint64_t* value) noexcept nogil:
    """Read an integer of 64 bits that has no sign, no fraction and no exponent."""
    cdef const char* start = rest.at
    cdef uint64_t digit
    value[0] = 0
    while rest.at < rest.end and c"0" <= rest.at[0] <= c"9":
        digit = rest.at[0] - c"0"
        if value[0] > (UINT64_MAX - digit) // 10:
            return False
        value[0] = 10 * value[0] + digit
        rest.at += 1
    # What begins with a zero is one.
    return rest.at - start == 1 or (rest.at > start and start[0] != c"0")


cdef Kind _device_of(Rest* rest, uint64_t* number) noexcept nogil:
    """Read the name of a device; NONE if it is spelled otherwise than it is written."""
    cdef const char* start
    cdef Kind kind
    number[0] = 0
    if _has(rest, b"cpu", 3):
        return CPU
    if _has(rest, b"cuda:", 5):
        kind = CUDA
    elif _has(rest, b"xpu:", 4):
        kind = XPU
    else:
        return NONE
    start = rest.at
    return kind if _number(rest, number) and rest.at - start <= DEVICE_DIGITS else NONE


cdef Kind _json_row(Rest* rest, uint64_t* row) noexcept nogil:
    cdef Kind kind
    if not (
        _token(rest, b"{", 1) and _has(rest, b'"device"', 8) and _token(rest, b":", 1)
        and _has(rest, b'"', 1)
    ):
        return NONE
    kind = _device_of(rest, &row[2])
    if kind and (
        _has(rest, b'"', 1) and _token(rest, b",", 1)
        and _has(rest, b'"ptr"', 5) and _token(rest, b":", 1) and _number(rest, &row[0])
        and _token(rest, b",", 1)
        and _has(rest, b'"size"', 6) and _token(rest, b":", 1) and _number(rest, &row[1])
        and _token(rest, b"}", 1)
    ):
        return kind
    return NONE


cdef bint _packed_uint(Rest* rest, uint64_t* value) noexcept nogil:
    cdef int first
    cdef int width
    cdef int i
    if rest.at == rest.end:
        return False
    first = <unsigned char>rest.at[0]
    rest.at += 1
    value[0] = first
    if first < 0x80:
        return True
    if not 0xcc <= first <= 0xcf:
        return False
    width = 1 << (first - 0xcc)
    if rest.end - rest.at < width:
        return False
    value[0] = 0
    for i in range(width):
        value[0] = value[0] << 8 | <unsigned char>rest.at[i]
    rest.at += width
    return True


cdef Kind _packed_row(Rest* rest, uint64_t* row) noexcept nogil:
    cdef Kind kind
    cdef Rest name
    cdef int size
    if rest.end - rest.at < 2 or <unsigned char>rest.at[0] != 0x93:
        return NONE
    size = <unsigned char>rest.at[1] - 0xa0  # of a short string
    rest.at += 2
    if not 0 <= size <= rest.end - rest.at:
        return NONE
    # What follows the name may look like more of its digits.
    name.at, name.end = rest.at, rest.at + size
    rest.at += size
    kind = _device_of(&name, &row[2])
    if kind and name.at == name.end and (
        _packed_uint(rest, &row[0]) and _packed_uint(rest, &row[1])
    ):
        return kind
    return NONE


cdef bint _is_good(const uint64_t* row, uint64_t* total) noexcept nogil:
    """Whether a row is one that a table takes, after those that have `total` bytes."""
    if row[0] == 0 or row[1] == 0 or row[1] > UINT64_MAX - row[0]:
        return False
    if row[1] > UINT64_MAX - total[0]:
        return False
    total[0] += row[1]
    return True


cdef Kind _read_json(Rest* rest, Regions table, Py_ssize_t* count) noexcept nogil:
    """Fill a table, which has more rows than the text can have."""
    cdef Kind kind = NONE
    cdef Kind each
    cdef uint64_t total = 0
    cdef uint64_t* row
    count[0] = 0
    if not _token(rest, b"[", 1):
        return NONE
    while True:
        row = &table.rows[3 * count[0]]
        each = _json_row(rest, row)
        if each == NONE or not _is_good(row, &total) or (count[0] and each != kind):
            return NONE
        kind = each
        count[0] += 1
        if _has(rest, b",", 1):
            continue
        return kind if _token(rest, b"]", 1) and rest.at == rest.end else NONE


cdef Kind _read_packed(Rest* rest, Regions table) noexcept nogil:
    """Fill a table, which has as many rows as the head says."""
    cdef Kind kind = NONE
    cdef Kind each
    cdef uint64_t total = 0
    cdef Py_ssize_t i
    for i in range(table.count):
        each = _packed_row(rest, &table.rows[3 * i])
        if each == NONE or not _is_good(&table.rows[3 * i], &total) or (i and each != kind):
            return NONE
        kind = each
    return kind if rest.at == rest.end else NONE


cdef class _Gathering:
    """A table that is filled row by row."""

    cdef Regions table
    cdef Kind kind
    cdef Py_ssize_t count
    cdef uint64_t total

    def __cinit__(self, Py_ssize_t most):
        self.table = table_of(most)

    cdef bint add(self, str device, uint64_t ptr, uint64_t size) except -1:
        """Add a row; return whether it may stand in the table."""
        cdef Rest rest
        cdef Py_ssize_t length
        cdef Kind kind
        cdef uint64_t* row = &self.table.rows[3 * self.count]
        rest.at = PyUnicode_AsUTF8AndSize(device, &length)
        rest.end = rest.at + length
        row[0], row[1] = ptr, size
        kind = _device_of(&rest, &row[2])
        if kind == NONE or rest.at != rest.end or (self.count and kind != self.kind):
            return False
        self.kind = kind
        self.count += 1
        return _is_good(row, &self.total)

    cdef tuple done(self):
        self.table._validate()
        return _NAMES[<int>self.kind], self.table


cpdef object of_list(list items):
    """Return the rows of descriptors that have been read one by one. Results as for `read_json`."""
    cdef tuple fixed = tuple(items)  # what is asked below may be code that changes the list
    cdef _Gathering rows
    if not fixed:
        return None
    rows = _Gathering(len(fixed))
    for item in fixed:
        try:
            if not rows.add(item.device, item.ptr, item.size):
                return None
        except (AttributeError, OverflowError, TypeError, ValueError):
            return None  # it was changed after it was read
    return rows.done()


def of_dicts(list items not None) -> tuple[bytes, Regions] | None:
    """Return the rows of dicts as `rows.plain` makes them. Results as for `read_json`."""
    cdef tuple fixed = tuple(items)
    cdef _Gathering rows
    if not fixed:
        return None
    rows = _Gathering(len(fixed))
    for item in fixed:
        if type(item) is not dict or len(<dict>item) != 3:
            return None
        device = (<dict>item).get("device")
        ptr = (<dict>item).get("ptr")
        size = (<dict>item).get("size")
        if type(device) is not str or type(ptr) is not int or type(size) is not int:
            return None
        if not (0 < ptr <= UINT64_MAX and 0 < size <= UINT64_MAX):
            return None
        if not device.isascii() or not rows.add(device, ptr, size):
            return None
    return rows.done()


def read_json(text: object, Py_ssize_t least) -> tuple[bytes, Regions] | None:
    """Read what `rows.json_of` writes, in brackets, with or without space between its parts.

    Parameters
    ----------
    text : buffer
        The text.
    least : int
        How many rows there have to be.

    Returns
    -------
    device : bytes
    rows : Regions
        Or None in place of both, if it is anything else.
    """
    cdef Py_buffer view
    cdef Rest rest
    cdef Regions table
    cdef Py_ssize_t count = 0
    cdef Kind kind
    cdef uint64_t* rows
    PyObject_GetBuffer(text, &view, PyBUF_SIMPLE)
    try:
        if view.len // SHORTEST_JSON < least:
            return None
        table = table_of(view.len // SHORTEST_JSON + 1)
        rest.at = <const char*>view.buf
        rest.end = rest.at + view.len
        with nogil:
            kind = _read_json(&rest, table, &count)
    finally:
        PyBuffer_Release(&view)
    if kind == NONE or count < least:
        return None
    rows = <uint64_t*>realloc(table.rows, count * 24)
    if rows is not NULL:
        table.rows = rows
    table.count = count
    table._validate()
    return _NAMES[<int>kind], table


def unpacked(data: object, Py_ssize_t least) -> tuple[bytes, Regions] | None:
    """Read what `rows.packed` writes. Parameters and results are those of `read_json`."""
    cdef Py_buffer view
    cdef Rest rest
    cdef Regions table
    cdef Kind kind
    cdef uint64_t count = 0
    cdef int width
    cdef int i
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        rest.at = <const char*>view.buf
        rest.end = rest.at + view.len
        if view.len < 5 or not 0xdc <= <unsigned char>rest.at[0] <= 0xdd:
            return None  # fewer than 16, too, which `rows.packed` writes otherwise
        width = 2 if <unsigned char>rest.at[0] == 0xdc else 4
        for i in range(width):
            count = count << 8 | <unsigned char>rest.at[1 + i]
        rest.at += 1 + width
        if count < <uint64_t>least or count > <uint64_t>(rest.end - rest.at) // SHORTEST_PACKED:
            return None
        table = table_of(count)
        with nogil:
            kind = _read_packed(&rest, table)
    finally:
        PyBuffer_Release(&view)
    if kind == NONE:
        return None
    table._validate()
    return _NAMES[<int>kind], table

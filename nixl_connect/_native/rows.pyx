"""Rows as what two programs send each other: JSON, msgpack, and what seals cover.

Written here is the canonical form of many descriptors, and read here is that form alone: whatever
is spelled in another way, or wrong, is left to whoever asks, who reads every form and says what is
wrong. What is read comes from strangers.

All rows are of one kind of device. Its name is given and returned as ``b"cpu"``, or ``b"cuda:"``,
say, which the number of each row follows.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from nixl_connect._native.packing cimport Regions, table_of

cdef enum:
    SHORTEST_JSON = 33      # {"device":"cpu","ptr":1,"size":1}
    SHORTEST_PACKED = 7
    DIGITS = 20             # of 64 bits
    DEVICE_DIGITS = 5

# Kinds of devices, as their names are found.
cdef enum Kind:
    NONE = 0
    CPU = 1
    CUDA = 2
    XPU = 3

_NAMES = (b"", b"cpu", b"cuda:", b"xpu:")


# --- written --------------------------------------------------------------------------------------


cdef char* _text(char* out, const char* text, size_t size) noexcept nogil:
    memcpy(out, text, size)
    return out + size


cdef char* _decimal(char* out, uint64_t value) noexcept nogil:
    cdef char[DIGITS] digits
    cdef int at = DIGITS
    while True:
        at -= 1
        digits[at] = c"0" + <char>(value % 10)
        value //= 10
        if value == 0:
            break
    return _text(out, &digits[at], DIGITS - at)


cdef char* _device(char* out, const char* name, size_t size, uint64_t number) noexcept nogil:
    out = _text(out, name, size)
    return _decimal(out, number) if name[size - 1] == c":" else out


cdef char* _as_json(char* out, const uint64_t* row, const char* name, size_t size) noexcept nogil:
    out = _text(out, b'{"device":"', 11)
    out = _device(out, name, size, row[2])
    out = _text(out, b'","ptr":', 8)
    out = _decimal(out, row[0])
    out = _text(out, b',"size":', 8)
    out = _decimal(out, row[1])
    return _text(out, b"},", 2)


cdef char* _as_listed(char* out, const uint64_t* row, const char* name, size_t size) noexcept nogil:
    out = _text(out, b";", 1)
    out = _device(out, name, size, row[2])
    out = _text(out, b",", 1)
    out = _decimal(out, row[0])
    out = _text(out, b",", 1)
    return _decimal(out, row[1])


cdef char* _big_endian(char* out, uint64_t value, int width) noexcept nogil:
    cdef int i
    for i in range(width):
        out[i] = <char>(value >> (8 * (width - 1 - i)))
    return out + width


cdef char* _packed_number(char* out, uint64_t value) noexcept nogil:
    """Write an integer in as few bytes as can be."""
    cdef int log = 0
    if value < 0x80:
        return _big_endian(out, value, 1)
    while log < 3 and value >> (8 << log):
        log += 1
    out[0] = <char>(0xcc + log)
    return _big_endian(out + 1, value, 1 << log)


cdef char* _as_packed(char* out, const uint64_t* row, const char* name, size_t size) noexcept nogil:
    cdef char* head = out + 1
    out[0] = <char>0x93
    out = _device(head + 1, name, size, row[2])
    head[0] = <char>(0xa0 + (out - head - 1))
    out = _packed_number(out, row[0])
    return _packed_number(out, row[1])


ctypedef char* (*Writer)(char*, const uint64_t*, const char*, size_t) noexcept nogil


cdef bytes _written(Regions regions, bytes device, Writer write, bytes head, size_t tail):
    """Return what a writer makes of each row, after `head`, and without the last `tail` bytes."""
    cdef Py_ssize_t i
    cdef const char* name = device
    cdef size_t size = len(device)
    cdef char* text
    cdef char* out
    if size == 0 or size > 16:
        raise ValueError(f"a device named {device!r}")
    # More than the longest of them takes.
    text = <char*>malloc(len(head) + regions.count * (size + 2 * DIGITS + DEVICE_DIGITS + 64))
    if text is NULL:
        raise MemoryError
    try:
        out = _text(text, head, len(head))
        with nogil:
            for i in range(regions.count):
                out = write(out, &regions.rows[3 * i], name, size)
        return text[:out - text - tail]
    finally:
        free(text)


def json_of(Regions regions not None, bytes device not None) -> bytes:
    """Return ``{"device":"cpu","ptr":1,"size":2}`` for each row, with commas between them."""
    return _written(regions, device, _as_json, b"", 1)


def listed(Regions regions not None, bytes device not None) -> bytes:
    """Return ``;<device>,<address>,<length>`` for each row, in decimal: for seals."""
    return _written(regions, device, _as_listed, b"", 0)


def packed(Regions regions not None, bytes device not None) -> bytes:
    """Return a msgpack array of arrays: device, address and length of each row."""
    cdef char[5] head
    cdef char* out = head
    if regions.count < 16:
        out = _big_endian(out, 0x90 + regions.count, 1)
    elif regions.count < 1 << 16:
        out = _big_endian(_text(out, b"\xdc", 1), regions.count, 2)
    else:
        out = _big_endian(_text(out, b"\xdd", 1), regions.count, 4)
    return _written(regions, device, _as_packed, head[:out - head], 0)


def plain(Regions regions not None, bytes device not None) -> list[dict[str, str | int]]:
    """Return a dict of each row, with its `device`, `ptr` and `size`."""
    cdef Py_ssize_t i
    cdef uint64_t number = 0
    cdef uint64_t* row
    cdef bint numbered = device.endswith(b":")
    name = device.decode()
    full = f"{name}0" if numbered else name
    made = []
    for i in range(regions.count):
        row = &regions.rows[3 * i]
        if numbered and row[2] != number:
            number = row[2]
            full = f"{name}{number}"
        made.append({"device": full, "ptr": row[0], "size": row[1]})
    return made


def same(Regions one not None, Regions other not None) -> bool:
    """Whether two tables have the same rows."""
    return one.count == other.count and memcmp(one.rows, other.rows, one.count * 24) == 0


# --- read -----------------------------------------------------------------------------------------

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


def of_list(list items not None) -> tuple[bytes, Regions] | None:
    """Return the rows of descriptors that have been read one by one. Results as for `read_json`."""
    cdef Regions table
    cdef Rest rest
    cdef Py_ssize_t i
    cdef Py_ssize_t size
    cdef Kind kind = NONE
    cdef Kind each
    cdef uint64_t total = 0
    cdef uint64_t* row
    cdef tuple fixed = tuple(items)  # what is asked below may be code that changes the list
    if not fixed:
        return None
    table = table_of(len(fixed))
    for i in range(table.count):
        item = fixed[i]
        row = &table.rows[3 * i]
        row[0], row[1] = item.ptr, item.size
        rest.at = PyUnicode_AsUTF8AndSize(item.device, &size)
        rest.end = rest.at + size
        each = _device_of(&rest, &row[2])
        if each == NONE or rest.at != rest.end or (i and each != kind):
            return None
        if not _is_good(row, &total):
            return None
        kind = each
    table._validate()
    return _NAMES[<int>kind], table


def read_json(text: object, Py_ssize_t least) -> tuple[bytes, Regions] | None:
    """Read what `json_of` writes, in brackets, with or without space between its parts.

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
    """Read what `packed` writes. Parameters and results are those of `read_json`."""
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
            return None  # fewer than 16, too, which `packed` writes otherwise
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

"""Rows as two programs send them to each other: JSON, msgpack, and what seals cover.

All rows are of one kind of device. Its name is given as ``b"cpu"``, or as ``b"cuda:"``, say, which
the number of each row follows. `readers` reads what is written here.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from nixl_connect._native.packing cimport Regions

cdef enum:
    DIGITS = 20             # of 64 bits
    DEVICE_DIGITS = 5


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

"""What a passive operation tells of its memory: NIXL's metadata of it, as a zlib stream and text.

A region that is described again, as those of pools are and what was registered by hand, has its
stream at hand: with its registration, for as long as that lasts.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_New
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.envelope cimport sections_of
from nixl_connect._native.hold cimport Hold
from nixl_connect._native.packing cimport Regions, table_of
from nixl_connect._native.registration cimport Registration

import zlib

cdef extern from "Python.h":
    void* PyUnicode_DATA(object text)
    bint PyUnicode_IS_ASCII(object text)

# What the wire form in base64 begins with.
TAG = "b64:"

cdef enum:
    TAG_SIZE = 4
    # Up to this many bytes are not deflated.
    STORED = 2048
    # What zlib adds to them, and what comes of them all as text, at most.
    WRAPPING = 11
    LONGEST = 4096

cdef const char* ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# What each character is worth there, or -1.
cdef signed char[256] VALUES


def deflate(bytes blob not None) -> bytes:
    """Return the blob as one zlib stream (RFC 1950): deflated if it is long, else only wrapped.

    A few hundred bytes, most of them keys and addresses, deflate badly, and it costs more than all
    else that metadata needs.
    """
    cdef Py_ssize_t size = len(blob)
    cdef bytes stream
    cdef char* out
    cdef uint16_t length
    cdef uint32_t checksum
    cdef int i
    if size > STORED:
        # Of the smaller windows: the default allocates, and so faults in, a quarter of a megabyte.
        deflater = zlib.compressobj(1, zlib.DEFLATED, 12, 4)
        return deflater.compress(blob) + deflater.flush()
    # One stored block (RFC 1951, 3.2.4): its mark, its size, its size inverted.
    stream = PyBytes_FromStringAndSize(NULL, size + WRAPPING)
    out = PyBytes_AS_STRING(stream)
    memcpy(out, b"\x78\x01\x01", 3)
    length = <uint16_t>size
    memcpy(out + 3, &length, 2)  # little-endian, as all machines that NIXL runs on
    length = <uint16_t>~length
    memcpy(out + 5, &length, 2)
    memcpy(out + 7, <const char*>blob, size)
    checksum = zlib.adler32(blob)
    for i in range(4):
        out[7 + size + i] = <char>((checksum >> (24 - 8 * i)) & 0xFF)
    return stream


cpdef str text_of(bytes stream):
    """Return the wire form of a zlib stream: its base64 (RFC 4648), tagged."""
    cdef Py_ssize_t size = len(stream)
    cdef const unsigned char* at = <const unsigned char*><const char*>stream
    cdef str text = PyUnicode_New(TAG_SIZE + (size + 2) // 3 * 4, 127)
    cdef char* out = <char*>PyUnicode_DATA(text)  # nobody else has it yet
    cdef uint32_t bits
    memcpy(out, "b64:", TAG_SIZE)
    out += TAG_SIZE
    while size >= 3:
        bits = <uint32_t>at[0] << 16 | <uint32_t>at[1] << 8 | at[2]
        out[0] = ALPHABET[bits >> 18]
        out[1] = ALPHABET[bits >> 12 & 63]
        out[2] = ALPHABET[bits >> 6 & 63]
        out[3] = ALPHABET[bits & 63]
        at += 3
        out += 4
        size -= 3
    if size:
        bits = <uint32_t>at[0] << 16 | (<uint32_t>at[1] << 8 if size == 2 else 0)
        out[0] = ALPHABET[bits >> 18]
        out[1] = ALPHABET[bits >> 12 & 63]
        out[2] = ALPHABET[bits >> 6 & 63] if size == 2 else c"="
        out[3] = c"="
    return text


cdef void _read_backwards() noexcept:
    cdef int i
    memset(VALUES, -1, sizeof(VALUES))
    for i in range(64):
        VALUES[<unsigned char>ALPHABET[i]] = <signed char>i


_read_backwards()


cdef bytes _decoded(const unsigned char* at, Py_ssize_t size):
    """Return what base64 stands for; None where it is not as `text_of` writes it."""
    cdef int spare = 0
    cdef bytes decoded
    cdef char* out
    cdef int a, b, c, d
    if size == 0 or size % 4:
        return None
    while spare < 2 and at[size - 1 - spare] == c"=":
        spare += 1
    decoded = PyBytes_FromStringAndSize(NULL, size // 4 * 3 - spare)
    out = PyBytes_AS_STRING(decoded)
    while size > 4 or (size == 4 and spare == 0):
        a, b, c, d = VALUES[at[0]], VALUES[at[1]], VALUES[at[2]], VALUES[at[3]]
        if (a | b | c | d) < 0:
            return None
        out[0] = <char>(a << 2 | b >> 4)
        out[1] = <char>(b << 4 | c >> 2)
        out[2] = <char>(c << 6 | d)
        out += 3
        at += 4
        size -= 4
    if spare:
        a, b, c = VALUES[at[0]], VALUES[at[1]], 0 if spare == 2 else VALUES[at[2]]
        if (a | b | c) < 0 or (c & 3 if spare == 1 else b & 15):
            return None  # bits that mean nothing
        out[0] = <char>(a << 2 | b >> 4)
        if spare == 1:
            out[1] = <char>(b << 4 | c >> 2)
    return decoded


def blob_of(str text not None, Py_ssize_t limit) -> bytes | None:
    """Return the blob whose stream `deflate` has only wrapped, from its wire form in base64.

    Returns
    -------
    bytes or None
        None where it is over `limit` bytes, of another form, or wrong: for who reads every form.
    """
    cdef Py_ssize_t size = len(text)
    cdef const unsigned char* at
    cdef bytes stream
    cdef uint16_t length, inverted
    cdef uint32_t checksum = 0
    cdef int i
    if size > LONGEST or not PyUnicode_IS_ASCII(text):
        return None
    at = <const unsigned char*>PyUnicode_DATA(text)
    if size < TAG_SIZE or memcmp(at, "b64:", TAG_SIZE):
        return None
    stream = _decoded(at + TAG_SIZE, size - TAG_SIZE)
    if stream is None:
        return None
    size = len(stream) - WRAPPING
    at = <const unsigned char*><const char*>stream
    if size < 0 or size > min(limit, STORED) or memcmp(at, b"\x78\x01\x01", 3):
        return None
    memcpy(&length, at + 3, 2)
    memcpy(&inverted, at + 5, 2)
    if length != size or inverted != <uint16_t>~length:
        return None
    for i in range(4):
        checksum = checksum << 8 | at[7 + size + i]
    blob = stream[7:7 + size]
    return blob if checksum == zlib.adler32(blob) else None


cpdef bytes describe(Agent agent, Hold hold, int mem_type, bytes head):
    """Return NIXL's metadata of what a hold has registered, with connection info, compressed.

    Parameters
    ----------
    agent : Agent
        Where.
    hold : Hold
        What to describe.
    mem_type : int
        Its memory type.
    head : bytes
        The agent's metadata up to its sections.

    Returns
    -------
    bytes or None
        None where the hold has ended, and nothing is registered any more.

    Raises
    ------
    NativeError
        NIXL fails.
    """
    cdef Registration* registration = hold.only()
    cdef bytes stream
    agent.handed_out = True
    if registration is not NULL and registration.described is not NULL:
        return <bytes>registration.described
    cdef Regions regions
    if registration is not NULL:
        regions = table_of(1)
        memcpy(regions.rows, registration.row, sizeof(registration.row))
        regions._validate()
    else:
        rows = hold.rows()
        if not rows:
            return None
        regions = Regions(rows)
    described = agent.partial_metadata(regions, mem_type)
    # It may have ended before NIXL was asked, which then described nothing without a word.
    if not len(hold):
        return None
    stream = deflate(head + sections_of(described))
    registration = hold.only()
    if registration is not NULL and registration.described is NULL:
        Py_INCREF(stream)
        registration.described = <PyObject*>stream
    return stream

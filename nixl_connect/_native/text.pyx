"""What a passive operation tells of its memory: NIXL's metadata of it, as a zlib stream and text.

A region that is described again, as those of pools are and what was registered by hand, has its
stream at hand: with its registration, for as long as that lasts.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.hold cimport Hold
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.registration cimport Registration

from nixl_connect._native.envelope import sections_of

import zlib
from binascii import b2a_base64

# What the wire form in base64 begins with.
TAG = "b64:"

cdef enum:
    # Up to this many bytes are not deflated.
    STORED = 2048


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
    stream = PyBytes_FromStringAndSize(NULL, size + 11)
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


def text_of(bytes stream not None) -> str:
    """Return the wire form of a zlib stream."""
    return TAG + (<bytes>b2a_base64(stream, newline=False)).decode("ascii")


def describe(
    agent: Agent, Hold hold not None, int mem_type, bytes head not None
) -> bytes | None:
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
    if registration is not NULL and registration.described is not NULL:
        return <bytes>registration.described
    rows = hold.rows()
    if not rows:
        return None
    described = agent.partial_metadata(Regions(rows), mem_type)
    # It may have ended before NIXL was asked, which then described nothing without a word.
    if not len(hold):
        return None
    stream = deflate(head + sections_of(described))
    registration = hold.only()
    if registration is not NULL and registration.described is NULL:
        Py_INCREF(stream)
        registration.described = <PyObject*>stream
    return stream

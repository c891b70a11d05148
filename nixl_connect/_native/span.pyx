"""A region of memory: where it is, and what keeps it alive. The native part of `Descriptor`.

What an operation needs of its descriptors is read here, field by field: there may be a hundred
thousand. All of it runs under the GIL and calls no Python code, so it is one step to all others.
"""

cimport cython
from cpython.buffer cimport (
    Py_buffer,
    PyBUF_FULL_RO,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from libc.stdint cimport UINT64_MAX, uint64_t

from nixl_connect._native.buffer cimport agrees
from nixl_connect._native.mapped cimport is_accessible, is_mapped
from nixl_connect._native.overlaps cimport within
from nixl_connect._native.packing cimport Regions, table_of
from nixl_connect._native.plan cimport local_of

cdef extern from "Python.h":
    bint PyObject_IS_GC(object value)

cdef enum:
    HOST = 1    # DeviceKind's number of the host


cdef bint _is_plain(const char* format) noexcept nogil:
    """Whether a format is ASCII and has no Python objects; one with an O in a name may have."""
    if format is NULL:
        return True
    while format[0]:
        if format[0] == c"O" or <unsigned char>format[0] >= 128:
            return False
        format += 1
    return True


@cython.no_gc
@cython.freelist(64)
cdef class _Export:
    """Keeps a buffer exported.

    The collector does not see through it. For exporters that it does not see through either, as
    NumPy's arrays: a memoryview takes two objects, and both have to be collected.
    """

    cdef Py_buffer buffer

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)  # nothing where it could not be had


@cython.auto_pickle(False)
@cython.embedsignature(False)  # the first lines are what inspect.signature reads
cdef class Span:
    """Span(data, *, stream=None)\n--\n\nWhere a region of memory is."""

    # An ordinary buffer of the host's is taken here. All else, what is wrong included, is left to
    # `_locate` of what derives from this.

    def __init__(self, data: object, *, stream: object = None) -> None:
        self._registration = self._connection = self._last_used = None
        if stream is not None or not PyObject_CheckBuffer(data) or not self.take_buffer(data):
            self._locate(data, stream)

    cdef bint take_buffer(self, object data) except -1:
        """Take what is a buffer like most; return whether it is."""
        cdef Py_buffer* buffer
        cdef object view
        try:
            if PyObject_IS_GC(data):
                if type(data) is not memoryview and hasattr(type(data), "mask"):
                    return False  # which may be one of NumPy's
                view = PyMemoryView_FromObject(data)
                buffer = PyMemoryView_GET_BUFFER(view)
            else:
                view = _Export()
                buffer = &(<_Export>view).buffer
                PyObject_GetBuffer(data, buffer, PyBUF_FULL_RO)
        except (TypeError, ValueError, BufferError, NotImplementedError):
            return False
        if (
            buffer.buf is NULL
            or buffer.len <= 0
            or <uint64_t>buffer.buf > UINT64_MAX - <uint64_t>buffer.len
            or not _is_plain(buffer.format)
            or not agrees(buffer)
            or not PyBuffer_IsContiguous(buffer, b"A")
        ):
            return False
        self.address = <uint64_t>buffer.buf
        self.whole = self.length = buffer.len
        self.number = 0
        self.kind = HOST
        self.mem_type = 0
        self.readonly = buffer.readonly
        self.bare = False
        self._reference = data
        self._hold = view
        self._device = self._stream = self._metadata = None
        return True

    def _locate(self, data: object, stream: object) -> None:
        """Take any object, with `_take`, or raise: for what derives from this."""
        raise NotImplementedError

    def _take(
        self,
        uint64_t address,
        uint64_t size,
        device: object,
        int kind,
        uint64_t number,
        *,
        bint readonly,
        reference: object,
        hold: object,
        stream: object,
        bint bare,
    ) -> None:
        """Take what is known of memory: the fields of `Memory`, with a device of None for the host.
        """
        self.address = address
        self.whole = self.length = size
        self._device = device
        self.kind = kind
        self.mem_type = 0 if device is None else device.mem_type
        self.number = number
        self.readonly = readonly
        self._reference = reference
        self._hold = hold
        self._stream = stream
        self.bare = bare
        self._metadata = None

    def _cut(self, Span whole not None, uint64_t offset, uint64_t size) -> None:
        """Take a part of another's memory, which is kept."""
        self.address = whole.address + offset
        self.whole = self.length = size
        self._device = whole._device
        self.kind = whole.kind
        self.mem_type = whole.mem_type
        self.number = whole.number
        self.readonly = whole.readonly
        self._reference = whole._reference
        self._hold = whole, whole._hold
        self._stream = whole._stream
        self.bare = whole.bare

    @property
    def _address(self) -> int:
        return self.address

    @property
    def _whole(self) -> int:
        return self.whole

    @property
    def _size(self) -> int:
        return self.length

    @_size.setter
    def _size(self, uint64_t size):
        self.length = size
        self._metadata = None

    @property
    def _readonly(self) -> bool:
        return self.readonly

    @property
    def _bare(self) -> bool:
        return self.bare

    @property
    def _row(self) -> tuple[int, int, int]:
        return self.address, self.length, self.number

    @property
    def _mem_type(self) -> int:
        """NIXL's number of the memory type."""
        return self.mem_type


cdef tuple taken(object given, Py_ssize_t limit, bint written, object used):
    """Return descriptors as a list, and the memory that they are of.

    Or None where something else is among them, or something is to be said against one: more than
    `limit`, of several kinds of memory, read-only or overlapping and yet to be `written`, not
    mapped.

    Parameters
    ----------
    given : object
        A descriptor, or a list or tuple of them.
    used : weakref.ref
        Of the connection that takes them, which they note.
    """
    cdef Py_ssize_t i
    cdef Py_ssize_t count
    cdef Span span
    cdef Regions regions
    cdef list items
    cdef list held = []
    cdef int kind = 0
    cdef int mem_type = 0
    if isinstance(given, Span):
        items = [given]
    elif isinstance(given, (list, tuple)):
        items = list(given)
    else:
        return None
    count = len(items)
    if not 0 < count <= limit:
        return None
    regions = table_of(count)
    for i in range(count):
        item = items[i]
        if not isinstance(item, Span):
            return None
        span = <Span>item
        if i == 0:
            kind = span.kind
            mem_type = span.mem_type
        if span.address == 0 or span.kind != kind or (written and span.readonly):
            return None
        if span.bare and kind == HOST and not (
            is_mapped(span.address, span.length) and is_accessible(span.address, written)
        ):
            return None
        regions.rows[3 * i] = span.address
        regions.rows[3 * i + 1] = span.length
        regions.rows[3 * i + 2] = span.number
        held.append(span._hold)
    regions._validate()
    if written and count > 1 and within(regions) is not None:
        return None
    for span in items:
        span._last_used = used
    return items, local_of(regions, mem_type, held)


cdef bint unchanged(list items, Regions rows) except -1:
    """Whether descriptors are as long as when their rows were taken, of the same number."""
    cdef Py_ssize_t i
    for i in range(rows.count):
        if (<Span?>items[i]).length != rows.rows[3 * i + 1]:
            return False
    return True


cpdef bint have_streams(list items) except -1:
    """Whether one of these descriptors has a stream to wait for."""
    cdef Span span
    for span in items:
        if span._stream is not None:
            return True
    return False

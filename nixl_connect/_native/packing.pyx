"""Rows of (address, length, device) and the NIXL lists that are made of them.

A `Regions` owns one C array of ``uint64[n, 3]`` and never changes after its construction, so any
thread may read it without the GIL for as long as it holds a reference.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.number cimport PyNumber_Index
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from nixl_connect._native.capi cimport Api


cdef enum:
    PAGE = 4096


cdef class Regions:
    """An immutable ``uint64[n, 3]`` table: address, length in bytes, device number.

    Parameters
    ----------
    rows : sequence of (int, int, int), or buffer
        The rows, or a C-contiguous buffer of unsigned 64-bit integers of shape ``(n, 3)``.

    Raises
    ------
    ValueError
        No rows, a null address, a length of zero, a range or a total that leaves 64 bits, or a
        buffer of another shape or format.
    TypeError
        A row is not three integers.
    OverflowError
        A number is negative or leaves 64 bits.

    Notes
    -----
    Supports the buffer protocol: ``numpy.asarray(regions)`` is a read-only view.
    """

    def __cinit__(self, rows: object):
        cdef Py_ssize_t i
        cdef tuple fixed
        if isinstance(rows, (list, tuple)):
            fixed = tuple(rows)  # a conversion below may run code that changes the list
            self._allocate(len(fixed))
            for i in range(self.count):
                row = fixed[i]
                if len(row) != 3:
                    raise TypeError(f"row {i} must be (address, length, device), not {row!r}")
                # Of integers only: a conversion to C alone would take a fraction too.
                self.rows[3 * i] = PyNumber_Index(row[0])
                self.rows[3 * i + 1] = PyNumber_Index(row[1])
                self.rows[3 * i + 2] = PyNumber_Index(row[2])
        else:
            self._copy(rows)
        self._validate()
        self.shape[0] = self.count
        self.shape[1] = 3
        self.strides[0] = 24
        self.strides[1] = 8

    def __dealloc__(self):
        free(self.rows)

    cdef int _allocate(self, Py_ssize_t count) except -1:
        if count == 0:
            raise ValueError("rows must not be empty")
        self.rows = <uint64_t*>malloc(count * 3 * sizeof(uint64_t))
        if self.rows is NULL:
            raise MemoryError
        self.count = count
        return 0

    cdef int _copy(self, object source) except -1:
        cdef Py_buffer view
        PyObject_GetBuffer(source, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        try:
            if view.ndim != 2 or view.shape[1] != 3 or view.itemsize != 8 or (
                view.format is NULL or view.format[0] not in b"LQ"
            ):
                raise ValueError("rows must be uint64 of shape (n, 3)")
            self._allocate(view.shape[0])
            memcpy(self.rows, view.buf, self.count * 24)
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef int _validate(self) except -1:
        cdef Py_ssize_t i
        cdef uint64_t address
        cdef uint64_t length
        for i in range(self.count):
            address = self.rows[3 * i]
            length = self.rows[3 * i + 1]
            if address == 0:
                raise ValueError(f"row {i}: null address")
            if length == 0:
                raise ValueError(f"row {i}: length 0")
            if length > UINT64_MAX - address:
                raise ValueError(
                    f"row {i}: {length} bytes from {address:#x} leave the address space"
                )
            if length > UINT64_MAX - self.nbytes:
                raise ValueError(f"row {i}: the total length leaves 64 bits")
            self.nbytes += length
        return 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, Py_ssize_t i) -> tuple[int, int, int]:
        if i < 0:
            i += self.count
        if not 0 <= i < self.count:
            raise IndexError("row index out of range")
        return self.rows[3 * i], self.rows[3 * i + 1], self.rows[3 * i + 2]

    def split(self, Py_ssize_t count) -> list[Regions]:
        """Cut the rows into `count` tables of about the same size in bytes, in order.

        There must be as many pages. Two tables with rows of the same sizes are cut alike.
        """
        cdef uint64_t share = ((self.nbytes - 1) // count + PAGE) // PAGE * PAGE
        cdef uint64_t left = share
        cdef uint64_t start = 0
        cdef uint64_t length
        cdef uint64_t* row
        cdef Py_ssize_t i = 0
        tables = []
        rows = []
        while i < self.count:
            row = &self.rows[3 * i]
            length = min(row[1] - start, left)
            rows.append((row[0] + start, length, row[2]))
            left -= length
            start += length
            if start == row[1]:
                i, start = i + 1, 0
            if left == 0:
                tables.append(Regions(rows))
                rows, left = [], share
        if rows:
            tables.append(Regions(rows))
        return tables

    def __getbuffer__(self, Py_buffer* view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("Regions are read-only")
        view.obj = self
        view.buf = self.rows
        view.len = self.count * 24
        view.readonly = True
        view.itemsize = 8
        view.format = b"Q"
        view.ndim = 2
        view.shape = self.shape
        view.strides = self.strides
        view.suboffsets = NULL
        view.internal = NULL

    # Both builders return a NIXL status; on success `out` belongs to the caller.

    cdef int reg_dlist(self, const Api* nixl, int mem_type, void** out) noexcept nogil:
        cdef Py_ssize_t i
        cdef int rc = nixl.create_reg_dlist(mem_type, out)
        if rc:
            return rc
        for i in range(self.count):
            rc = nixl.reg_dlist_add_desc(
                out[0], self.rows[3 * i], self.rows[3 * i + 1], self.rows[3 * i + 2], NULL, 0
            )
            if rc:
                nixl.destroy_reg_dlist(out[0])
                return rc
        return 0

    cdef int xfer_dlist(self, const Api* nixl, int mem_type, void** out) noexcept nogil:
        cdef Py_ssize_t i
        cdef int rc = nixl.create_xfer_dlist(mem_type, out)
        if rc:
            return rc
        for i in range(self.count):
            rc = nixl.xfer_dlist_add_desc(
                out[0], self.rows[3 * i], self.rows[3 * i + 1], self.rows[3 * i + 2]
            )
            if rc:
                nixl.destroy_xfer_dlist(out[0])
                return rc
        return 0

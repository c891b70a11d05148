"""Rows of (address, length, device) and the NIXL lists that are made of them.

A `Regions` owns one C array of ``uint64[n, 3]`` and never changes after its construction, so any
thread may read it without the GIL for as long as it holds a reference.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_STRIDED_RO,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.number cimport PyNumber_Index
from libc.stdint cimport (
    UINT32_MAX,
    UINT64_MAX,
    int8_t,
    int16_t,
    int32_t,
    int64_t,
    uint64_t,
)
from libc.stdint cimport SIZE_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from nixl_connect._native.capi cimport Api


cdef enum:
    PAGE = 4096


# In place of rows: what fills a table itself.
_NOTHING = object()


cdef int _kind_of(const char* format, Py_ssize_t size) noexcept:
    """Return the bytes of an integer, negative for a signed one; 0 for what is none."""
    if size not in (1, 2, 4, 8):
        return 0  # `_index_at` copies so many into 8, whatever the exporter says
    if format is NULL:
        return <int>size
    if format[0] in b"@=<":
        format += 1
    if format[0] == 0 or format[1] != 0:
        return 0
    if format[0] in b"bhilqn":
        return -<int>size
    return <int>size if format[0] in b"BHILQN" else 0


cdef uint64_t _index_at(const char* item, int kind) noexcept nogil:
    """Return an index. A negative one is more than any."""
    cdef uint64_t index = 0
    if kind > 0:
        memcpy(&index, item, kind)
    elif kind == -1:
        index = <uint64_t><int64_t>(<int8_t*>item)[0]
    elif kind == -2:
        index = <uint64_t><int64_t>(<int16_t*>item)[0]
    elif kind == -4:
        index = <uint64_t><int64_t>(<int32_t*>item)[0]
    else:
        index = <uint64_t>(<int64_t*>item)[0]
    return index


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
        if rows is _NOTHING:
            return  # to be filled here
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

    def __dealloc__(self):
        free(self.rows)

    cdef int _allocate(self, Py_ssize_t count) except -1:
        if count == 0:
            raise ValueError("rows must not be empty")
        if <size_t>count > SIZE_MAX // (3 * sizeof(uint64_t)):
            raise MemoryError
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
        self.shape[0] = self.count
        self.shape[1] = 3
        self.strides[0] = 24
        self.strides[1] = 8
        return 0

    cdef bint _fill(
        self, const char* indices, Py_ssize_t step, int kind, const Blocks* blocks
    ) noexcept nogil:
        """Fill the rows; return whether there is a block of each index."""
        cdef Py_ssize_t i
        cdef uint64_t index
        cdef uint64_t* row
        for i in range(self.count):
            index = _index_at(indices + i * step, kind)
            if index >= blocks.count:
                return False
            row = &self.rows[3 * i]
            row[0] = blocks.address + index * blocks.stride
            row[1] = blocks.length
            row[2] = blocks.device
        return True

    @staticmethod
    def of_blocks(
        uint64_t address, uint64_t stride, uint64_t length, uint64_t device, uint64_t count,
        indices: object
    ) -> Regions:
        """Return a row for each of some blocks, of which the first starts at `address`.

        Parameters
        ----------
        address, stride, length, device : int
            Where the blocks are: bytes from the start of one to that of the next, bytes of each.
        count : int
            How many there are.
        indices : range, or buffer
            Which of them, in order: a buffer of integers, of one dimension and in the machine's
            byte order.

        Raises
        ------
        ValueError
            None, an index that is not less than `count`, or a buffer of another shape or format.
        """
        cdef Regions table = Regions.__new__(Regions, _NOTHING)
        cdef Blocks blocks
        cdef Py_buffer view
        cdef Py_ssize_t i
        cdef Py_ssize_t start
        cdef Py_ssize_t step
        cdef int kind
        cdef bint good
        if length == 0 or stride == 0 or count == 0:
            raise ValueError(f"{count} blocks of {length} bytes, one every {stride}")
        if length > UINT64_MAX - address or (count - 1) > (UINT64_MAX - address - length) // stride:
            raise ValueError(f"{count} blocks from {address:#x} leave the address space")
        blocks.address, blocks.stride, blocks.length = address, stride, length
        blocks.device, blocks.count = device, count
        if isinstance(indices, range):
            table._allocate(len(indices))
            if not (0 <= indices[0] < count and 0 <= indices[len(indices) - 1] < count):
                raise ValueError(f"indices: {indices} leaves the {count} blocks that there are")
            start, step = indices.start, indices.step
            with nogil:
                for i in range(table.count):
                    table.rows[3 * i] = address + <uint64_t>(start + i * step) * stride
                    table.rows[3 * i + 1] = length
                    table.rows[3 * i + 2] = device
        else:
            PyObject_GetBuffer(indices, &view, PyBUF_STRIDED_RO | PyBUF_FORMAT)
            try:
                kind = _kind_of(view.format, view.itemsize)
                if view.ndim != 1 or kind == 0:
                    raise ValueError("indices must be integers, in one dimension")
                table._allocate(view.shape[0])
                with nogil:
                    good = table._fill(<const char*>view.buf, view.strides[0], kind, &blocks)
                if not good:
                    raise ValueError(f"indices name more than the {count} blocks that there are")
            finally:
                PyBuffer_Release(&view)
        table._validate()
        return table

    @staticmethod
    def join(list tables not None) -> Regions:
        """Return the rows of several tables as one."""
        cdef Regions table
        cdef Regions joined
        cdef Py_ssize_t count = 0
        if len(tables) == 1:
            return tables[0]
        for table in tables:
            count += table.count
        joined = Regions.__new__(Regions, _NOTHING)
        joined._allocate(count)
        count = 0
        for table in tables:
            memcpy(&joined.rows[3 * count], table.rows, table.count * 24)
            count += table.count
        joined._validate()
        return joined

    def indices(self, uint64_t address, uint64_t stride) -> bytes:
        """Return the indices that `of_blocks` made rows of: 4 bytes each, or 8 for large ones."""
        cdef Py_ssize_t i
        cdef uint64_t highest = 0
        cdef uint64_t index
        cdef bytes packed
        cdef char* out
        for i in range(self.count):
            highest = max(highest, (self.rows[3 * i] - address) // stride)
        cdef size_t width = 4 if highest <= UINT32_MAX else 8
        packed = PyBytes_FromStringAndSize(NULL, self.count * width)
        out = packed
        for i in range(self.count):
            index = (self.rows[3 * i] - address) // stride
            memcpy(out + i * width, &index, width)  # both are little-endian
        return packed

    cpdef int mismatch(self, Regions other) except -2:
        """Return the first row whose length is not that of the other table's, or -1."""
        cdef Py_ssize_t i
        for i in range(min(self.count, other.count)):
            if self.rows[3 * i + 1] != other.rows[3 * i + 1]:
                return i
        return -1 if self.count == other.count else min(self.count, other.count)

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


cdef Regions table_of(Py_ssize_t count):
    cdef Regions table = Regions.__new__(Regions, _NOTHING)
    table._allocate(count)
    return table


def coalesce(
    Regions local not None, Regions remote not None, list edges not None
) -> tuple[Regions, Regions]:
    """Merge rows that follow each other without a gap in both of two tables.

    Parameters
    ----------
    local, remote : Regions
        As many rows, each as long as its counterpart.
    edges : list of int
        Rows that are not to be merged with the one before them, rising.

    Returns
    -------
    local, remote : Regions
        The same bytes, in the same order.
    """
    if local.count != remote.count:
        raise ValueError(f"{local.count} rows and {remote.count}")
    cdef Regions here = Regions.__new__(Regions, _NOTHING)
    cdef Regions there = Regions.__new__(Regions, _NOTHING)
    cdef uint64_t* a = local.rows
    cdef uint64_t* b = remote.rows
    cdef uint64_t* x
    cdef uint64_t* y
    cdef Py_ssize_t i
    cdef Py_ssize_t n = 0
    cdef Py_ssize_t passed = 0
    cdef Py_ssize_t edge = edges[0] if edges else local.count
    cdef bint fresh
    here._allocate(local.count)
    there._allocate(local.count)
    x = here.rows
    y = there.rows
    for i in range(local.count):
        fresh = i == 0
        if i == edge:
            fresh = True
            passed += 1
            edge = edges[passed] if passed < len(edges) else local.count
        if not fresh and (
            x[3 * n - 3] + x[3 * n - 2] == a[3 * i] and x[3 * n - 1] == a[3 * i + 2]
            and y[3 * n - 3] + y[3 * n - 2] == b[3 * i] and y[3 * n - 1] == b[3 * i + 2]
        ):
            x[3 * n - 2] += a[3 * i + 1]
            y[3 * n - 2] += b[3 * i + 1]
            continue
        memcpy(&x[3 * n], &a[3 * i], 24)
        memcpy(&y[3 * n], &b[3 * i], 24)
        n += 1
    here.count = there.count = n
    here._validate()
    there._validate()
    return here, there

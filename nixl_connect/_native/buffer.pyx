"""Where the bytes of an exported buffer are."""

from cpython.buffer cimport Py_buffer, PyBuffer_IsContiguous
from cpython.memoryview cimport PyMemoryView_GET_BUFFER


cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX


cdef bint agrees(const Py_buffer* buffer) noexcept nogil:
    """Whether an exporter says as many bytes as its shape has."""
    cdef Py_ssize_t items = 1
    cdef Py_ssize_t i
    if buffer.shape is NULL or buffer.itemsize <= 0:
        return True
    for i in range(buffer.ndim):
        if buffer.shape[i] == 0:
            items = 0
    for i in range(buffer.ndim):
        if items and buffer.shape[i] > PY_SSIZE_T_MAX // items:
            return False
        items *= buffer.shape[i]
    return items == buffer.len // buffer.itemsize and buffer.len % buffer.itemsize == 0


def inspect(view: memoryview) -> tuple[int, int, bool, bool]:
    """Return the address, the size in bytes, and whether it is read-only and dense.

    The address is good for as long as `view` is neither released nor freed. Dense means that the
    bytes follow each other without a gap, in C or Fortran order.

    Raises
    ------
    ValueError
        The exporter contradicts itself, or `view` has been released.
    """
    if not isinstance(view, memoryview):
        raise TypeError("view must be a memoryview")
    memoryview(view)  # raises ValueError where it has been released
    cdef Py_buffer* buffer = PyMemoryView_GET_BUFFER(view)
    if not agrees(buffer):
        raise ValueError(
            f"it says {buffer.len} bytes, but a shape of {view.shape} items of {buffer.itemsize}"
        )
    return <size_t>buffer.buf, buffer.len, bool(buffer.readonly), bool(
        PyBuffer_IsContiguous(buffer, b"A")
    )

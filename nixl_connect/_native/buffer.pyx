"""Where the bytes of an exported buffer are."""

from cpython.buffer cimport Py_buffer, PyBuffer_IsContiguous
from cpython.memoryview cimport PyMemoryView_GET_BUFFER


def inspect(view: memoryview) -> tuple[int, int, bool, bool]:
    """Return the address, the size in bytes, and whether it is read-only and dense.

    The address is good for as long as `view` is neither released nor freed. Dense means that the
    bytes follow each other without a gap, in C or Fortran order.
    """
    if not isinstance(view, memoryview):
        raise TypeError("view must be a memoryview")
    memoryview(view)  # raises ValueError where it has been released
    cdef Py_buffer* buffer = PyMemoryView_GET_BUFFER(view)
    return <size_t>buffer.buf, buffer.len, bool(buffer.readonly), bool(
        PyBuffer_IsContiguous(buffer, b"A")
    )

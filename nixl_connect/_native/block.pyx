"""Some bytes of larger memory, as an object: it ends when nobody refers to these bytes any more.

There is one type for all sizes. (Arrays of ctypes have a type for each, which is kept in a cache
and goes with the cyclic garbage collector only.)
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)


cdef class Block:
    """A writable buffer of bytes within another object's. Weak references may refer to it.

    Parameters
    ----------
    memory : object
        A writable buffer, contiguous. It is exported, and so neither moves nor goes, for as long as
        the block lives.
    offset, length : int
        Which of its bytes.

    Raises
    ------
    ValueError
        There are no such bytes.
    BufferError
        `memory` is read-only or not contiguous.
    """

    cdef object __weakref__
    cdef Py_buffer whole
    cdef Py_ssize_t offset
    cdef Py_ssize_t length

    def __cinit__(self, memory: object, Py_ssize_t offset, Py_ssize_t length):
        PyObject_GetBuffer(memory, &self.whole, PyBUF_SIMPLE | PyBUF_WRITABLE)
        if offset < 0 or length < 1 or length > self.whole.len - offset:
            raise ValueError(f"{length} bytes from {offset} of {self.whole.len}")
        self.offset = offset
        self.length = length

    def __dealloc__(self):
        # Nothing where it could not be had.
        PyBuffer_Release(&self.whole)

    def __len__(self) -> int:
        return self.length

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(
            view, self, <char*>self.whole.buf + self.offset, self.length, False, flags
        )

"""Tensors that other libraries export over DLPack, read where the exporter put them.

Source of the declarations: https://dmlc.github.io/dlpack/latest/c_api.html
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_SetName
from libc.stdint cimport (
    INT64_MAX,
    UINT64_MAX,
    int32_t,
    int64_t,
    uint8_t,
    uint16_t,
    uint32_t,
    uint64_t,
)


cdef struct DLDevice:
    int32_t kind
    int32_t number


cdef struct DLDataType:
    uint8_t code
    uint8_t bits
    uint16_t lanes


cdef struct DLTensor:
    void* data
    DLDevice device
    int32_t ndim
    DLDataType dtype
    int64_t* shape
    int64_t* strides            # in items; NULL for C order
    uint64_t byte_offset


cdef struct DLManagedTensor:
    DLTensor tensor
    void* context
    void (*deleter)(DLManagedTensor*) noexcept


cdef struct DLManagedTensorVersioned:
    uint32_t major
    uint32_t minor
    void* context
    void (*deleter)(DLManagedTensorVersioned*) noexcept
    uint64_t flags
    DLTensor tensor


cdef enum:
    MAJOR = 1
    READ_ONLY = 1
    COPIED = 2
    PADDED = 4                  # each item of less than a byte has one to itself
    OPAQUE = 3                  # the type code of handles
    MOST_DIMENSIONS = 64


cdef class Tensor:
    """What a DLPack capsule exports. Keeps it exported for as long as it lives.

    Parameters
    ----------
    capsule : object
        What ``__dlpack__`` returned. It is consumed.

    Raises
    ------
    ValueError
        No such capsule, one that was consumed before, or what it says makes no sense.
    BufferError
        Of a version of DLPack that is not known here.

    Notes
    -----
    The exporter's deleter runs with the GIL held, on whichever thread drops the tensor.
    """

    # Exactly one of the two, and the deleter has not been called.
    cdef DLManagedTensor* managed
    cdef DLManagedTensorVersioned* versioned
    cdef DLTensor* tensor       # in one of them
    cdef readonly uint64_t nbytes
    """Bytes of the items, without gaps."""
    cdef readonly bint is_dense
    """Whether the items follow each other without a gap, in C or Fortran order."""

    def __cinit__(self, object capsule):
        if PyCapsule_IsValid(capsule, "dltensor_versioned"):
            self.versioned = <DLManagedTensorVersioned*>PyCapsule_GetPointer(
                capsule, "dltensor_versioned"
            )
            PyCapsule_SetName(capsule, "used_dltensor_versioned")
            if self.versioned.major != MAJOR:
                raise BufferError(f"DLPack {self.versioned.major}.{self.versioned.minor}")
            self.tensor = &self.versioned.tensor
        elif PyCapsule_IsValid(capsule, "dltensor"):
            self.managed = <DLManagedTensor*>PyCapsule_GetPointer(capsule, "dltensor")
            PyCapsule_SetName(capsule, "used_dltensor")
            self.tensor = &self.managed.tensor
        else:
            raise ValueError(f"no DLPack capsule, or one that was consumed: {capsule!r}")
        self._measure()

    def __dealloc__(self):
        if self.managed is not NULL and self.managed.deleter is not NULL:
            self.managed.deleter(self.managed)
        if self.versioned is not NULL and self.versioned.deleter is not NULL:
            self.versioned.deleter(self.versioned)

    cdef int _measure(self) except -1:
        cdef int32_t i
        cdef uint64_t items = 1
        cdef uint64_t bits = self.tensor.dtype.bits
        if bits < 8 and self.versioned is not NULL and self.versioned.flags & PADDED:
            bits = 8
        bits *= self.tensor.dtype.lanes
        if self.tensor.dtype.code == OPAQUE:
            raise ValueError("its items are handles")
        if not 0 <= self.tensor.ndim <= MOST_DIMENSIONS or bits == 0 or (
            self.tensor.ndim > 0 and self.tensor.shape is NULL
        ):
            raise ValueError(f"a tensor of {self.tensor.ndim} dimensions and {bits} bits an item")
        for i in range(self.tensor.ndim):
            if self.tensor.shape[i] < 0:
                raise ValueError(f"shape {self.shape}")
        for i in range(self.tensor.ndim):
            if self.tensor.shape[i] == 0:
                items = 0
        for i in range(self.tensor.ndim):
            if items and <uint64_t>self.tensor.shape[i] > INT64_MAX // bits // items:
                raise ValueError(f"shape {self.shape} leaves 64 bits")
            items *= <uint64_t>self.tensor.shape[i]
        self.nbytes = (items * bits + 7) // 8
        if items and self.tensor.data is NULL:
            raise ValueError("null pointer")
        if self.tensor.byte_offset > UINT64_MAX - <size_t>self.tensor.data:
            raise ValueError(f"byte offset {self.tensor.byte_offset}")
        self.is_dense = items == 0 or self._follows(-1) or self._follows(1)
        return 0

    cdef bint _follows(self, int step):
        """Whether the strides are those of C (step -1) or Fortran order."""
        cdef int64_t expected = 1
        cdef int32_t n
        cdef int32_t i
        if self.tensor.strides is NULL:
            return True
        for n in range(self.tensor.ndim):
            i = n if step == 1 else self.tensor.ndim - 1 - n
            if self.tensor.shape[i] != 1 and self.tensor.strides[i] != expected:
                return False
            expected *= self.tensor.shape[i]
        return True

    @property
    def address(self) -> int:
        """Of the first item."""
        return <size_t>self.tensor.data + self.tensor.byte_offset

    @property
    def device(self) -> tuple[int, int]:
        """DLPack's number of the kind of device, and the device's number."""
        return self.tensor.device.kind, self.tensor.device.number

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents, in items."""
        return tuple([self.tensor.shape[i] for i in range(self.tensor.ndim)])

    @property
    def strides(self) -> tuple[int, ...] | None:
        """Strides in items, or None for C order."""
        if self.tensor.strides is NULL:
            return None
        return tuple([self.tensor.strides[i] for i in range(self.tensor.ndim)])

    @property
    def is_readonly(self) -> bool:
        """Whether the exporter says so, which before DLPack 1.0 it could not."""
        return self.versioned is not NULL and self.versioned.flags & READ_ONLY != 0

    @property
    def is_copied(self) -> bool:
        """Whether the exporter says that it made a copy."""
        return self.versioned is not NULL and self.versioned.flags & COPIED != 0

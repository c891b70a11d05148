"""Exports over DLPack that say whatever a test wants, built by hand.

Source of the declarations: https://dmlc.github.io/dlpack/latest/c_api.html
"""

import ctypes

HOST, CUDA = (1, 0), (2, 0)
READ_ONLY, COPIED = 1, 2

_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("kind", ctypes.c_int32),
        ("number", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Exporter:
    """An object with ``__dlpack__``.

    Parameters
    ----------
    pointer : int
        Address of the data.
    shape, strides : tuple of int
        In items; no strides for C order.
    device : (int, int)
        What it says that it is on.
    exports : (int, int), optional
        What its capsule says that it is on; the same by default.
    version : (int, int), optional
        Of a versioned capsule.
    """

    def __init__(
        self,
        pointer,
        shape,
        strides=None,
        *,
        device=HOST,
        exports=None,
        bits=8,
        lanes=1,
        offset=0,
        flags=0,
        version=None,
        ndim=None,
        code=2,
    ):
        self.device = device
        self.version = version
        self.flags = flags
        self.shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        self.strides = None
        if strides is not None:
            self.strides = (ctypes.c_int64 * max(len(strides), 1))(*strides)
        self.tensor = _Tensor(
            pointer,
            *(exports or device),
            len(shape) if ndim is None else ndim,
            code,
            bits,
            lanes,
            ctypes.addressof(self.shape),
            None if strides is None else ctypes.addressof(self.strides),
            offset,
        )
        self.exported = []
        self.deleted = 0
        self.asked = []
        self._deleter = _DELETER(self._delete)

    def _delete(self, _):
        self.deleted += 1

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        if self.version is None and set(options) - {"stream"}:
            raise TypeError("unexpected keyword argument")  # as from before DLPack 1.0
        self.asked.append(options)
        if self.version is None:
            exported, name = _Managed(self.tensor, None, self._deleter), b"dltensor"
        else:
            exported = _Versioned(*self.version, None, self._deleter, self.flags, self.tensor)
            name = b"dltensor_versioned"
        self.exported.append(exported)
        return _new(ctypes.addressof(exported), name, None)

"""Values of ONNX Runtime on the host."""

import gc
import weakref

import numpy as np
import pytest
from moving import moved
from processes import until

import nixl_connect as nc

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.protocol("ONNX Runtime `OrtValue`", "`__dlpack__`", "host", "sent, received")
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.bool_])
def test_onnx_runtime(dtype):
    data = (np.arange(600) % 2).astype(dtype).reshape(20, 30)
    source = onnxruntime.OrtValue.ortvalue_from_numpy(data)
    target = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(data))
    descriptor = nc.Descriptor(source)
    assert (descriptor.ptr, descriptor.size) == (source.data_ptr(), data.nbytes)
    moved(source, target)
    assert (target.numpy() == data).all()


def test_onnx_runtime_of_types_that_numpy_has_not():
    element = 16  # TensorProto.BFLOAT16
    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type((4, 5), element)
    assert nc.Descriptor(value).size == 40


def test_what_a_value_was_made_of_is_held_too():
    """A value is of an array's memory, which its export over DLPack does not own."""
    data = np.zeros(1000, np.float32)
    known = weakref.ref(data)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(data)
    with nc.Connector(quarantine=0.5) as connector:
        writable = connector.create_writable_blocking(nc.Descriptor(value))
        writable.metadata()
        writable.cancel()  # a peer may still write
        del data, value, writable
        gc.collect()
        assert known() is not None
    until(lambda: known() is None, collect=True)

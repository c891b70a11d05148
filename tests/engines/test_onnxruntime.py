"""Values of ONNX Runtime on the host."""

import numpy as np
import pytest
from moving import moved

import nixl_connect as nc

onnxruntime = pytest.importorskip("onnxruntime")


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

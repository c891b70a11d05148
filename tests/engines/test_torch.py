"""Tensors of torch on the host."""

import pytest
from moving import moved

import nixl_connect as nc

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "bool"])
def test_torch(dtype):
    source = (torch.arange(600) % 2).to(getattr(torch, dtype)).reshape(20, 30)
    target = torch.zeros_like(source)
    assert nc.Descriptor(source).ptr == source.data_ptr()
    moved(source, target)
    assert (target.view(torch.uint8) == source.view(torch.uint8)).all()


def test_torch_parameters_and_slices():
    parameter = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))
    assert nc.Descriptor(parameter).size == 48
    assert nc.Descriptor(parameter[1]).ptr == parameter.data_ptr() + 16
    with pytest.raises(nc.ArgumentError, match="not contiguous"):
        nc.Descriptor(parameter[:, 1:3])
    with pytest.raises(nc.ArgumentError, match="strided"):
        nc.Descriptor(torch.eye(3).to_sparse())
    with pytest.raises(nc.ArgumentError, match="conjugate"):
        nc.Descriptor(torch.zeros(3, dtype=torch.complex64).conj())
    with pytest.raises(nc.ArgumentError):
        nc.Descriptor(torch.zeros(3, device="meta"))

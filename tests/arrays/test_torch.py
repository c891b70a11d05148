"""Tensors of torch on the host."""

import importlib.util

import pytest
from moving import moved

import nixl_connect as nc
from nixl_connect import arrays as named

torch = pytest.importorskip("torch")


@pytest.mark.protocol("torch", "the tensor itself", "host", "sent, received")
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


def test_memory_stays_that_a_tensor_lets_go_of():
    """To give a tensor other data is to let go of its storage, which a peer may still write to."""
    tensor = torch.zeros(1 << 14, dtype=torch.uint8)
    with nc.Connector() as owner, nc.Connector() as mover:
        writable = owner.create_writable_blocking(nc.Descriptor(tensor))
        start = tensor.data_ptr()
        tensor.data = torch.empty(0, dtype=torch.uint8)
        others = [torch.full((1 << 14,), 7, dtype=torch.uint8) for _ in range(200)]
        assert start not in [other.data_ptr() for other in others]
        write = mover.begin_write_blocking(nc.Descriptor(bytes(1 << 14)), writable.metadata())
        write.wait_for_completion_blocking(20)
        assert all((other == 7).all() for other in others)


def test_storage_that_is_too_small():
    tensor = torch.zeros(1 << 16, dtype=torch.uint8)
    tensor.untyped_storage().resize_(16)
    with pytest.raises(nc.ArgumentError, match=r"^data: a torch tensor of 65536 bytes"):
        nc.Descriptor(tensor)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_not_quite_a_tensor():
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(nc.ArgumentError):
        nc.Descriptor(nested)
    with pytest.raises(nc.ArgumentError, match="meta"):
        nc.Descriptor(torch.zeros(3, device="meta"))
    with pytest.raises(nc.ArgumentError):
        nc.Descriptor(torch.nn.UninitializedParameter())
    with pytest.raises(nc.ArgumentError, match="at least 1 byte"):
        nc.Descriptor(torch.zeros(0))


def test_tensors_with_names():
    """Their types are named as ml_dtypes names them, which is not needed for that."""
    tensors = {
        "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "f8": torch.arange(6).to(torch.float8_e4m3fn),
        "t": torch.arange(6.0).reshape(2, 3).t(),
        "s": torch.tensor(True),
    }
    into = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    sparse = torch.arange(12.0).reshape(3, 4)[:, :2]
    with nc.Connector() as owner, nc.Connector() as mover:
        with named.offer_blocking(owner, tensors, transfers=None) as offer:
            named.fetch_blocking(mover, offer.message(), into=into)
            for name, tensor in tensors.items():
                assert into[name].stride() == tensor.stride()
                assert torch.equal(tensor.double(), into[name].double()), name
            got = named.fetch_blocking(mover, offer.message(), only=["t", "s"])
            assert (got["t"] == tensors["t"].numpy()).all()
            assert got["t"].strides == (4, 12)
            assert got["s"]
        with pytest.raises(nc.ArgumentError, match="copy=True"):
            named.offer_blocking(owner, {"x": sparse})
        with named.offer_blocking(owner, {"x": sparse}, copy=True) as offer:
            assert (named.fetch_blocking(mover, offer.message())["x"] == sparse.numpy()).all()
        with named.expect_blocking(owner, {"x": torch.zeros_like(tensors["b"])}) as offer:
            named.push_blocking(mover, offer.message(), {"x": tensors["b"]})
            offer.wait_blocking(20)
            assert torch.equal(offer.arrays["x"], tensors["b"])
        with named.expect_blocking(owner, {"x": ((), torch.float16)}) as offer:
            assert offer.arrays["x"].dtype == "float16"
        if importlib.util.find_spec("ml_dtypes") is None:
            with pytest.raises(nc.LibraryError, match="ml_dtypes"):
                named.expect_blocking(owner, {"x": (3, torch.bfloat16)})

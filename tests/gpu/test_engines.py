"""Arrays of engines on a GPU, each where it is installed."""

import os

import numpy as np
import pytest

import nixl_connect as nc

DEADLINE = 20
DATA = np.arange(600, dtype=np.float32).reshape(20, 30)


def sent(array):
    """Return what a peer reads of an array, as bytes of the host."""
    received = np.zeros_like(DATA)
    with nc.Connector() as owner, nc.Connector() as mover:
        descriptor = nc.Descriptor(array)
        assert descriptor.device == nc.Device("cuda:0")
        assert descriptor.size == DATA.nbytes
        readable = owner.create_readable_blocking(descriptor)
        read = mover.begin_read_blocking(readable.metadata(), nc.Descriptor(received))
        read.wait_for_completion_blocking(DEADLINE)
        readable.wait_for_completion_blocking(DEADLINE)
    return received


def receive(array):
    """Have the data received in an array."""
    with nc.Connector() as owner, nc.Connector() as mover:
        readable = owner.create_readable_blocking(nc.Descriptor(DATA))
        read = mover.begin_read_blocking(readable.metadata(), nc.Descriptor(array))
        read.wait_for_completion_blocking(DEADLINE)
        readable.wait_for_completion_blocking(DEADLINE)


@pytest.mark.protocol("CuPy", "`__cuda_array_interface__`", "GPU", "sent, received")
def test_cupy(gpu):
    cupy = pytest.importorskip("cupy")
    assert (sent(cupy.asarray(DATA)) == DATA).all()
    target = cupy.zeros_like(DATA)
    receive(target)
    assert (target.get() == DATA).all()
    with pytest.raises(nc.ArgumentError, match="not contiguous"):
        nc.Descriptor(target[:, ::2])
    with pytest.raises(nc.ArgumentError, match="at least 1 byte"):
        nc.Descriptor(cupy.zeros((0, 5)))


def test_cupy_on_a_stream_of_its_own(gpu):
    """The array names its stream, and what that was given is waited for."""
    cupy = pytest.importorskip("cupy")
    with cupy.cuda.Stream(non_blocking=True) as stream, nc.Connector() as owner:
        array = cupy.zeros(1 << 28, cupy.float32)
        array += 1  # which compiles the kernel
        owner.create_readable_blocking(nc.Descriptor(array)).cancel()
        for _ in range(199):  # each takes a millisecond or so
            array += 1
        assert not stream.done, "the work is done before it can be waited for: make it more"
        owner.create_readable_blocking(nc.Descriptor(array)).cancel()
        assert stream.done


@pytest.mark.protocol("JAX", "`__dlpack__`", "GPU", "sent; read-only")
def test_jax(gpu):
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("this JAX has no GPU")
    assert (sent(jax.numpy.asarray(DATA)) == DATA).all()
    with pytest.raises(nc.ArgumentError, match="read-only"):
        receive(jax.numpy.zeros_like(DATA))


@pytest.mark.protocol(
    "cuda.core `Buffer` and `StridedMemoryView`", "`__dlpack__`", "GPU", "sent, received"
)
def test_cuda_core(gpu):
    if "CUDA_DOUBLE" in os.environ:
        pytest.skip("the rehearsal's driver has not what cuda.core needs")
    core = pytest.importorskip("cuda.core")
    utils = pytest.importorskip("cuda.core.utils")
    device = core.Device(0)
    device.set_current()
    buffer = device.allocate(DATA.nbytes, stream=device.default_stream)
    device.default_stream.sync()
    try:
        receive(buffer)
        assert (sent(buffer) == DATA).all()
        view = utils.StridedMemoryView.from_any_interface(buffer, stream_ptr=-1)
        assert (sent(view) == DATA).all()
        receive(view)
    finally:
        buffer.close(device.default_stream)


@pytest.mark.protocol("torch", "itself", "GPU", "sent, received")
def test_torch(gpu):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no GPU")
    assert (sent(torch.from_numpy(DATA).cuda()) == DATA).all()
    target = torch.zeros(DATA.shape, device="cuda")
    receive(target)
    assert (target.cpu().numpy() == DATA).all()

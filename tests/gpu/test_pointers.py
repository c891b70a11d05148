"""Pointers that are not what they are said to be: the real driver knows."""

import numpy as np
import pytest

import nixl_connect as nc

SIZE = 1 << 20


@pytest.mark.parametrize("kind", ["device", "managed", "pooled"])
def test_where_memory_is(gpu, kind):
    memory = gpu.memory(SIZE, kind)
    descriptor = nc.Descriptor(memory)
    assert (descriptor.ptr, descriptor.size) == (memory.pointer, SIZE)
    assert descriptor.device == nc.Device("cuda:0")
    assert nc.Descriptor((memory.pointer, SIZE, "cuda:0", memory)).size == SIZE
    assert nc.Descriptor((memory.pointer + 100, 5, "cuda:0", memory)).size == 5


def test_cuda_python(gpu):
    from cuda.bindings import driver

    memory = gpu.memory(SIZE)
    pointer = driver.CUdeviceptr(memory.pointer)
    assert nc.Descriptor((pointer, SIZE, "cuda:0", memory)).ptr == memory.pointer


@pytest.mark.parametrize("number", [1, 7])
def test_a_wrong_device(gpu, number):
    memory = gpu.memory(SIZE)
    with pytest.raises(nc.ArgumentError, match=f"cuda:0, not of cuda:{number}"):
        nc.Descriptor((memory.pointer, SIZE, f"cuda:{number}"))


def test_memory_of_the_host(gpu):
    array = np.zeros(SIZE, np.uint8)
    with pytest.raises(nc.ArgumentError, match=r"not memory of a CUDA device|of the host"):
        nc.Descriptor((array.ctypes.data, SIZE, "cuda:0", array))


def test_pinned_memory_is_the_hosts(gpu):
    with (
        nc.Connector() as connector,
        nc.HostPool(connector) as pool,
        pool.acquire_blocking(SIZE) as lease,
    ):
        assert lease.descriptor.device == nc.Device("cpu")
        with pytest.raises(nc.ArgumentError, match="of the host"):
            nc.Descriptor((lease.descriptor.ptr, SIZE, "cuda:0"))


def test_what_leaves_its_allocation(gpu):
    memory = gpu.memory(64 << 20)
    with pytest.raises(nc.ArgumentError, match="leave their allocation"):
        nc.Descriptor((memory.pointer, 1 << 40, "cuda:0"))


def test_freed_memory(gpu):
    memory = gpu.memory(256 << 20)
    pointer = memory.pointer
    memory.free()
    with pytest.raises(nc.ArgumentError, match="not memory of a CUDA device"):
        nc.Descriptor((pointer, SIZE, "cuda:0"))


def test_the_context_stays_as_it_was(gpu):
    from gpu_api import call

    before = int(call("cuCtxGetCurrent"))
    memory = gpu.memory(SIZE)
    with nc.Connector() as connector:
        connector.create_readable_blocking(nc.Descriptor(memory, stream=gpu.stream())).cancel()
    assert int(call("cuCtxGetCurrent")) == before

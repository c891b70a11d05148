"""The driver knows better what a pointer is than who says what it is."""

import numpy as np
import pytest
from cuda.bindings import driver as bindings

import nixl_connect as nc

HOST = 1


@pytest.mark.protocol(
    "`(pointer, size, device)`, also a `CUdeviceptr`",
    "",
    "a simulated CUDA driver",
    "located, checked",
)
def test_a_whole_allocation(driver):
    start = driver.allocate(4096, device=1)
    descriptor = nc.Descriptor((start, 4096, "cuda:1"))
    assert (descriptor.ptr, descriptor.size, str(descriptor.device)) == (start, 4096, "cuda:1")
    assert nc.Descriptor((bindings.CUdeviceptr(start), 4096, "cuda:1")).ptr == start


def test_a_part_of_one(driver):
    start = driver.allocate(4096)
    assert nc.Descriptor((start + 100, 3996, "cuda")).size == 3996


@pytest.mark.parametrize(("offset", "size"), [(0, 4097), (4095, 2), (100, 1 << 40)])
def test_what_leaves_its_allocation(driver, offset, size):
    start = driver.allocate(4096)
    with pytest.raises(nc.ArgumentError, match=f"leave their allocation.*{4096 - offset}"):
        nc.Descriptor((start + offset, size, "cuda:0"))


def test_allocations_that_are_mapped_side_by_side(driver):
    start = driver.allocate(4096, gap=0)
    driver.allocate(4096)
    assert nc.Descriptor((start + 10, 8000, "cuda:0")).size == 8000
    other = driver.allocate(4096, gap=0)
    driver.allocate(4096, device=1)
    with pytest.raises(nc.ArgumentError, match="memory of cuda:1"):
        nc.Descriptor((other, 8192, "cuda:0"))


def test_another_device(driver):
    start = driver.allocate(4096, device=1)
    with pytest.raises(nc.ArgumentError, match="memory of cuda:1, not of cuda:0"):
        nc.Descriptor((start, 8, "cuda:0"))


def test_managed_memory_is_any_devices(driver):
    start = driver.allocate(4096, device=0, kind=HOST, managed=True)
    assert nc.Descriptor((start, 8, "cuda:1")).device == nc.Device("cuda:1")


def test_memory_of_the_host_that_the_driver_knows(driver):
    start = driver.allocate(4096, kind=HOST)
    with pytest.raises(nc.ArgumentError, match="memory of the host"):
        nc.Descriptor((start, 8, "cuda:0"))


def test_memory_that_it_does_not_know(driver):
    array = np.zeros(8, np.uint8)
    with pytest.raises(nc.ArgumentError, match="is not memory of a CUDA device"):
        nc.Descriptor((array.ctypes.data, 8, "cuda:0", array))


def test_memory_of_a_peer_is_not_looked_at(driver):
    serialized = nc.SerializedDescriptor(device="cuda:0", ptr=0x5000, size=8)
    assert nc.Descriptor.from_serialized(serialized).metadata == serialized


def test_a_pool_is_pinned(driver):
    """Each slab as it is added, until it goes; the memory is still there when it is unpinned."""
    with nc.Connector() as connector:
        pool = nc.HostPool(connector, max_bytes=8 << 20, slab_bytes=1 << 20)
        leases = [pool.acquire_blocking(size) for size in (100, 10_000)]
        assert driver.library.double_pinned() == 2
        for lease in leases:
            lease.release()
        del lease, leases
        assert pool.trim() == 2 << 20
        assert driver.library.double_pinned() == 0
        unpinned = nc.HostPool(connector, pin=False)
        unpinned.acquire_blocking(100).release()
        assert driver.library.double_pinned() == 0

"""Memory that cannot be moved."""

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect.memory import cuda
from provoked.lab import provokes


@provokes("ArgumentError: data: … is not contiguous; make a contiguous copy, and use that one")
def not_contiguous(lab):
    nc.Descriptor(np.zeros((4, 4))[:, :2])


@provokes("ArgumentError: data: null pointer")
def null(lab):
    nc.Descriptor((0, 8))


@provokes("ArgumentError: data: size must be at least 1 byte, not 0")
def empty(lab):
    nc.Descriptor(np.zeros(0))


@provokes("ArgumentTypeError: data must be a bytes-like object, …, not …")
def no_bytes(lab):
    nc.Descriptor("text")


@provokes("ArgumentError: data: an array of Python objects cannot be transferred")
def objects(lab):
    nc.Descriptor(np.array([object()]))


@provokes(
    "ArgumentError: data: a masked array cannot be transferred: give its data and its mask as two "
    "arrays"
)
def masked(lab):
    nc.Descriptor(np.ma.zeros(3))


@provokes("ArgumentError: data: the device is given as …, but the array is on …")
def another_device(lab):
    nc.Descriptor((np.zeros(3), "cuda:0"))


@provokes("ArgumentTypeError: local_descriptors must be a Descriptor or a list of them, not …")
def an_array(lab):
    lab.owner.create_readable_blocking(np.zeros(3))


@provokes("ArgumentTypeError: local_descriptors[…] must be a Descriptor or Blocks, not …")
def a_list_of_arrays(lab):
    lab.owner.create_readable_blocking([np.zeros(3)])


@provokes(
    "ArgumentError: local_descriptors[…] is read-only memory, so nothing can be received in it"
)
def read_only(lab):
    lab.owner.create_writable_blocking(nc.Descriptor(b"abc"))


@provokes(
    "ArgumentError: local_descriptors[…] is on …, but the first is on …; "
    "one operation takes memory of one kind"
)
def mixed(lab):
    device = nc.SerializedDescriptor(device="cuda:0", ptr=4096, size=16).to_descriptor()
    lab.owner.create_readable_blocking([nc.Descriptor(b"abc"), device])


@provokes("ArgumentError: local_descriptors[…] has … bytes, but the peer's has …")
def another_size(lab):
    lab.read(lab.readable().metadata(), size=4)


@provokes("ArgumentError: local_descriptors has … descriptors, but the peer's metadata has …")
def another_count(lab):
    two = [nc.Descriptor(bytearray(1)), nc.Descriptor(bytearray(2))]
    lab.mover.begin_read_blocking(lab.readable().metadata(), two)


@provokes(
    "ArgumentError: local_descriptors[…] and […] overlap, so what would arrive there is undefined"
)
def twice(lab):
    memory = bytearray(8)
    lab.owner.create_writable_blocking([nc.Descriptor(memory), nc.Descriptor(memory)])


@provokes(
    "ArgumentError: local_descriptors[…] overlaps remote_metadata.descriptors[…], "
    "memory of this process too; …"
)
def of_itself(lab):
    memory = memoryview(bytearray(8))
    offered = lab.owner.create_readable_blocking(nc.Descriptor(memory[:6]))
    lab.mover.begin_read_blocking(offered.metadata(), nc.Descriptor(memory[2:]))


@provokes("RegistrationError: NIXL refused to register …")
def unreachable(lab):
    if cuda.is_available():
        pytest.skip("UCX may reach the GPU that is here")
    device = nc.SerializedDescriptor(device="cuda:0", ptr=4096, size=16).to_descriptor()
    lab.owner.create_readable_blocking(device)


@provokes("RegistrationError: … is registered with connection …, not with …")
def registered_elsewhere(lab):
    descriptor = nc.Descriptor(bytearray(8))
    descriptor.register_memory(lab.owner)
    descriptor.register_memory(lab.mover)


@provokes(
    "QuarantineError: … bytes of abandoned operations are in quarantine; max_quarantine_bytes is …"
)
def quarantined(lab):
    connector = lab.make(max_quarantine_bytes=1)
    abandoned = lab.readable(connector=connector)
    abandoned.metadata()
    abandoned.cancel()
    lab.readable(connector=connector)


@provokes("PoolExhaustedError: no block of … bytes came back within … s: …")
def no_block(lab):
    with nc.HostPool(lab.owner, max_bytes=4096, slab_bytes=4096) as pool:
        lease = pool.acquire_blocking(4096)
        with lease:
            pool.acquire_blocking(4096, timeout=0.01)


@provokes("PoolMemoryError: the system has no … bytes for the pool: …")
def no_memory(lab):
    with nc.HostPool(lab.owner, max_bytes=1 << 50) as pool:
        pool.acquire_blocking(1 << 50)


@provokes("BufferError: Existing exports of data: object cannot be re-sized")
def resized(lab):
    data = bytearray(8)
    descriptor = nc.Descriptor(data)
    data.extend(b"more")
    del descriptor

"""What cuda.core makes of memory of the host."""

import gc

import numpy as np
import pytest
from moving import moved

import nixl_connect as nc

utils = pytest.importorskip("cuda.core.utils")


def view_of(array):
    return utils.StridedMemoryView.from_any_interface(array, stream_ptr=-1)


@pytest.mark.protocol("cuda.core `StridedMemoryView`", "`__dlpack__`", "host", "sent, received")
def test_strided_memory_views():
    source, target = np.arange(600).reshape(20, 30), np.zeros((20, 30), int)
    descriptor = nc.Descriptor(view_of(source))
    assert (descriptor.ptr, descriptor.size) == (source.ctypes.data, source.nbytes)
    assert descriptor.device == nc.Device("cpu")
    moved(view_of(source), view_of(target))
    assert (target == source).all()


def test_views_that_cannot_be_used():
    source = np.zeros((20, 30))
    with pytest.raises(nc.ArgumentError, match="not contiguous"):
        nc.Descriptor(view_of(source[:, ::2]))
    source.flags.writeable = False
    assert nc.Descriptor(view_of(source)).is_readonly


def test_a_view_holds_its_memory():
    descriptor = nc.Descriptor(view_of(np.full(100_000, 7, np.uint8)))
    gc.collect()
    target = bytearray(descriptor.size)
    moved_from(descriptor, target)
    assert target == b"\7" * 100_000


def moved_from(descriptor, target):
    with nc.Connector() as owner, nc.Connector() as mover:
        readable = owner.create_readable_blocking(descriptor)
        read = mover.begin_read_blocking(readable.metadata(), nc.Descriptor(target))
        read.wait_for_completion_blocking(20)
        readable.wait_for_completion_blocking(20)

"""Blocks: some bytes of larger memory, as an object."""

import gc
import mmap
import sys
import weakref

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect._native.block import Block


def test_it_is_the_bytes_of_the_memory():
    memory = bytearray(range(100))
    block = Block(memory, 10, 20)
    assert len(block) == len(memoryview(block)) == 20
    assert bytes(block) == bytes(range(10, 30))
    view = memoryview(block)
    assert (view.format, view.readonly, view.obj) == ("B", False, block)
    array = np.frombuffer(block, np.uint16)
    array[1] = 0xFFFF
    assert memory[12:14] == b"\xff\xff"
    descriptor = nc.Descriptor(block)
    assert descriptor.size == 20
    assert descriptor.ptr == array.ctypes.data
    assert not descriptor.is_readonly


def test_the_memory_stays_for_as_long():
    memory = bytearray(100)
    block = Block(memory, 0, 100)
    with pytest.raises(BufferError):
        memory.extend(b"more")
    del block
    memory.extend(b"more")
    mapped = mmap.mmap(-1, mmap.PAGESIZE)
    block = Block(mapped, 0, 1)
    with pytest.raises(BufferError):
        mapped.close()
    del block
    mapped.close()


def test_it_ends_with_the_last_who_refers_to_its_bytes():
    ended = []
    block = Block(bytearray(8), 0, 8)
    weakref.finalize(block, ended.append, 1)
    last = np.frombuffer(memoryview(block)[2:], np.uint8)[1:]
    gc.disable()
    try:
        del block
        assert not ended
        del last
        assert ended
    finally:
        gc.enable()


def test_one_type_for_all_sizes():
    memory = bytearray(10_000)
    Block(memory, 0, 1)
    before = sys.getallocatedblocks()
    for nbytes in range(2, 2000):
        memoryview(Block(memory, 1, nbytes))[0] = 1
    assert sys.getallocatedblocks() - before < 100


@pytest.mark.parametrize(
    ("offset", "length"), [(-1, 5), (0, 0), (0, -1), (0, 11), (10, 1), (5, sys.maxsize)]
)
def test_bytes_that_there_are_not(offset, length):
    memory = bytearray(10)
    with pytest.raises(ValueError, match="of 10"):
        Block(memory, offset, length)
    memory.clear()  # not exported any more


@pytest.mark.parametrize("memory", [b"read-only", memoryview(bytearray(10))[::2]])
def test_memory_that_is_none(memory):
    with pytest.raises(BufferError):
        Block(memory, 0, 1)
    with pytest.raises(TypeError):
        Block(None, 0, 1)

"""Local memory that is not there, or may not be written to: refused, or named as what it is."""

import ctypes
import mmap

import numpy as np
import pytest
from processes import DEADLINE, told, until

import nixl_connect as nc
from nixl_connect._native.packing import Regions
from nixl_connect.memory import mapped

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
SIZES = [100, 300_000, 8_000_000]


class Pages:
    """Pages that a test takes away again, of which nobody else knows."""

    def __init__(self, size):
        self.size = size
        self.address = LIBC.mmap(
            None,
            size,
            mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            -1,
            0,
        )
        assert self.address not in (None, ctypes.c_void_p(-1).value)

    def protect(self, protection, start=0, size=None):
        assert LIBC.mprotect(self.address + start, size or self.size, protection) == 0


@pytest.fixture
def pages():
    """Pages, with a gap on either side. They stay: whatever is unmapped may be somebody else's."""

    def make(size):
        whole = Pages(size + 2 * PAGE + (-size) % PAGE)
        whole.protect(0, 0, PAGE)
        whole.protect(0, whole.size - PAGE, PAGE)
        inner = Pages.__new__(Pages)
        inner.address, inner.size = whole.address + PAGE, size + (-size) % PAGE
        return inner

    return make


def bare(pages, size):
    return nc.Descriptor((pages.address, size))


def as_buffer(pages, size):
    """An object that exports the pages as if they were its own."""
    return nc.Descriptor((ctypes.c_char * size).from_address(pages.address))


@pytest.fixture
def connector(make_connector):
    return make_connector(timeout=DEADLINE)


def test_what_the_kernel_says(pages):
    one = pages(3 * PAGE)
    address = one.address
    ordinary = bytearray(10_000)
    start = ctypes.addressof(ctypes.c_char.from_buffer(ordinary))

    def fault(*rows, written=False):
        return mapped.fault(Regions([(*row, 0) for row in rows]), written=written)

    assert fault((start, 10_000), (address, 3 * PAGE), written=True) == ""
    one.protect(mmap.PROT_READ, PAGE, PAGE)
    assert fault((start, 10), (address, 3 * PAGE)) == ""
    assert fault((start, 10), (address, 3 * PAGE), written=True) == "read-only"
    assert fault((address, PAGE), (address + 2 * PAGE, PAGE), written=True) == ""
    one.protect(0, PAGE, PAGE)
    assert fault((address + PAGE - 1, 2)) == "not readable"
    LIBC.munmap(address + PAGE, PAGE)
    assert fault((address, PAGE), (address + 2 * PAGE, PAGE), written=True) == ""
    assert fault((address + PAGE - 1, 2)) == "not mapped"
    assert fault((1 << 63, 1)) == "not mapped"
    assert fault(((1 << 64) - 9, 8)) == "not mapped"


@pytest.mark.parametrize("address", [8, 1 << 46, 1 << 63, (1 << 64) - 2 * PAGE])
def test_an_address_of_nothing_is_refused(connector, address):
    for make in (connector.create_readable_blocking, connector.create_writable_blocking):
        with pytest.raises(nc.ArgumentError, match=r"\[1\] names memory that is not mapped: 8 byt"):
            make([nc.Descriptor(bytearray(3)), nc.Descriptor((address, 8))])


def test_a_hole_in_the_middle_is_refused(connector, pages):
    one = pages(3 * PAGE)
    LIBC.munmap(one.address + PAGE, PAGE)
    descriptor = bare(one, 3 * PAGE)
    with pytest.raises(nc.ArgumentError, match=f"not mapped: {3 * PAGE} bytes"):
        connector.create_readable_blocking(descriptor)
    with pytest.raises(nc.ArgumentError, match="not mapped"):
        connector.create_readable_blocking(nc.Blocks(descriptor, PAGE, [0]))
    part = descriptor.slice(PAGE - 8, 16)
    with pytest.raises(nc.ArgumentError, match="not mapped"):
        connector.create_readable_blocking(part)
    connector.create_readable_blocking(descriptor.slice(0, PAGE)).cancel()
    connector.create_writable_blocking(descriptor.slice(2 * PAGE, PAGE)).cancel()


def test_read_only_pages_receive_nothing(connector, pages):
    one = pages(PAGE)
    one.protect(mmap.PROT_READ)
    connector.create_readable_blocking(bare(one, PAGE)).cancel()
    with pytest.raises(nc.ArgumentError, match="is read-only memory, so nothing can be received"):
        connector.create_writable_blocking(bare(one, PAGE))
    one.protect(0)
    for make in (connector.create_readable_blocking, connector.create_writable_blocking):
        with pytest.raises(nc.ArgumentError, match="names memory that is not readable"):
            make(bare(one, PAGE))


@pytest.mark.parametrize("transports", ["", "tcp"])
def test_a_peer_is_not_lost_for_an_address_of_nothing(
    connector, pages, start_peer, monkeypatch, transports
):
    """Neither the operation in flight, nor the connection, nor the process."""
    if transports:
        monkeypatch.setenv("UCX_TLS", transports)
    peer = start_peer(environment={"UCX_TLS": transports} if transports else {})
    one, target = pages(100), np.zeros(100, np.uint8)
    one.protect(mmap.PROT_READ)
    for bad in (bare(one, 100), nc.Descriptor((8, 100))):
        made = peer.do("passive", kind="readable", sizes=[100])
        with pytest.raises(nc.ArgumentError, match=r"not mapped|read-only"):
            connector.begin_read_blocking(told(made), bad)
        connector.begin_read_blocking(
            told(made), nc.Descriptor(target)
        ).wait_for_completion_blocking(DEADLINE)
    assert connector.stats()["peers"]["reloads"] == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("protection", "what"), [(0, "not readable"), (1, "read-only")])
def test_memory_that_goes_is_named(connector, pages, start_peer, size, protection, what):
    """What an array's owner takes away, or an address's, after it was looked at."""
    peer = start_peer()

    expected = f"failed: local memory is {what} \\(NIXL: ERR_"
    made = peer.do("passive", kind="readable", sizes=[size], seed=1)
    one = pages(size)
    with connector.prepare_read_blocking(told(made), bare(one, size)) as transfer:
        transfer.transfer_blocking(DEADLINE)
        one.protect(protection)
        with pytest.raises(nc.TransferError, match=expected) as caught:
            transfer.transfer_blocking(DEADLINE)
        assert not isinstance(caught.value, nc.PeerLostError)
        assert caught.value.peer
    made = peer.do("passive", kind="readable", sizes=[size], seed=1)
    two = pages(size)
    descriptor = as_buffer(two, size)
    two.protect(protection)
    operation = connector.begin_read_blocking(told(made), descriptor)
    with pytest.raises(nc.TransferError, match=expected) as caught:
        operation.wait_for_completion_blocking(DEADLINE)
    assert not isinstance(caught.value, nc.PeerLostError)
    # UCX has given up the connection; another is made.
    made = peer.do("passive", kind="readable", sizes=[size], seed=1)
    target = np.zeros(size, np.uint8)
    connector.begin_read_blocking(told(made), nc.Descriptor(target)).wait_for_completion_blocking(
        DEADLINE
    )
    until(lambda: connector.stats()["operations"]["active"] == 0)

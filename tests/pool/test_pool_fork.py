"""Pools and forks: a child lends nothing and harms nobody; peers read what the parent writes."""

import asyncio
import contextlib
import errno
import gc
import mmap
import os
import select
import signal
import struct
import sys
import threading
import traceback

import numpy as np
import pytest
from processes import DEADLINE, run_python, told, until

import nixl_connect as nc
from nixl_connect.pool import slab

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
MIB = 1 << 20


@contextlib.contextmanager
def forked(act):
    """Fork a child that acts before the block begins and stays until it ends. It must not fail."""
    acted, tell = os.pipe()
    stay, leave = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(leave)
            act()
            os.write(tell, b".")
            os.read(stay, 1)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    ended = []
    try:
        os.close(tell)
        assert select.select([acted], [], [], DEADLINE)[0], "the child does nothing"
        assert os.read(acted, 1) == b".", "the child failed"
        yield
    finally:
        for number in (acted, stay, leave):
            os.close(number)
        try:
            until(lambda: ended.append(os.waitpid(child, os.WNOHANG)) or ended[-1][0])
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
    assert os.waitstatus_to_exitcode(ended[-1][1]) == 0


@pytest.fixture
def pool(connector):
    with nc.HostPool(connector, max_bytes=2 * MIB, slab_bytes=MIB) as made:
        yield made


def test_a_child_is_refused(connector, pool):
    lease = pool.acquire_blocking(5000)
    buffer = bytearray(5000)

    def act():
        for refused in (
            lambda: pool.acquire_blocking(5000, timeout=1),
            lambda: asyncio.run(pool.acquire(5000, timeout=1)),
            pool.trim,
            pool.stats,
            lambda: lease.copy_to_blocking(buffer),
            lambda: lease.copy_from_blocking(buffer),
            lambda: asyncio.run(lease.copy_to(buffer)),
            lambda: asyncio.run(lease.copy_from(buffer)),
            lambda: connector.create_readable_blocking(lease.descriptor),
            lambda: lease.descriptor.register_memory(connector),
        ):
            with pytest.raises(nc.ClosedError):
                refused()
        assert "parent" in repr(pool)
        pool.close()
        pool.close()

    with forked(act):
        assert pool.stats()["leases"] == 1
        pool.acquire_blocking(MIB).release()
    lease.release()
    assert pool.stats()["leases"] == 0
    assert pool.trim() == 2 * MIB


def test_what_a_child_writes_reaches_nobody(connector, pool, peer, content, digest):
    """And what the parent writes is what peers read, whatever the child does."""
    lease, view = pool.acquire_blocking(300_000), pool.acquire_blocking(300_000).view
    arrays = [np.frombuffer(lease.view, np.uint8), np.frombuffer(view, np.uint8)]
    for i, array in enumerate(arrays):
        array[:] = content(i, 300_000)
    offered = connector.create_readable_blocking(lease.descriptor)

    def act():
        for array in arrays:
            assert not array.any()
            array[:] = 66
        lease.view[:] = bytes(300_000)
        lease.release()
        gc.collect()

    with forked(act):
        for i, array in enumerate(arrays):
            assert digest(array) == digest(content(i, 300_000))
        arrays[0][:] = content(7, 300_000)
        made = peer.do(
            "active", kind="read", metadata=offered.metadata().model_dump(), sizes=[300_000]
        )
        peer.do("wait", number=made["id"])
        offered.wait_for_completion_blocking(DEADLINE)
        expected = digest(content(7, 300_000))
        assert peer.do("digests", number=made["id"])["digests"] == [expected]
        # The other direction, into memory that was lent before the fork.
        source = peer.do("passive", kind="readable", sizes=[300_000], seed=9)
        read = connector.begin_read_blocking(told(source), lease.descriptor)
        read.wait_for_completion_blocking(DEADLINE)
        assert digest(arrays[0]) == digest(content(9, 300_000))


def frames(address, size):
    """Return the numbers of the physical pages of some memory, as only root may see them."""
    page = mmap.PAGESIZE
    with open("/proc/self/pagemap", "rb", buffering=0) as pages:  # noqa: PTH123, to seek in it
        pages.seek(address // page * 8)
        entries = struct.unpack(f"{size // page}Q", pages.read(size // page * 8))
    return [entry & ((1 << 55) - 1) for entry in entries]


def test_a_fork_moves_no_page(pool):
    """A device that has pinned the pages would go on with the old ones."""
    lease = pool.acquire_blocking(MIB)
    array = np.frombuffer(lease.view, np.uint8)
    array[:] = 1
    before = frames(lease.descriptor.ptr, MIB)
    if not all(before):
        pytest.skip("only root may see physical pages")

    # A child that writes would be the one for whom a page is copied.
    with forked(lambda: None):
        array[:] = 2
        assert frames(lease.descriptor.ptr, MIB) == before


def test_a_fork_while_threads_use_the_pool(pool):
    """Whatever lock they hold, and whoever waits: the child does not hang, and wakes nobody."""
    lease, other = pool.acquire_blocking(MIB), pool.acquire_blocking(MIB)
    found, woken = [], []
    thread = threading.Thread(
        target=lambda: found.append(pool.acquire_blocking(MIB, timeout=DEADLINE))
    )
    thread.start()
    until(lambda: pool.stats()["waits"] == 1)
    (waiter,) = pool._slabs._in_line(MIB)
    held, done = threading.Event(), threading.Event()

    def hold():
        with pool._slabs._lock:
            held.set()
            done.wait(DEADLINE)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(DEADLINE)

    def act():
        waiter.wake = lambda: woken.append(1)
        lease.release()
        gc.collect()
        with pytest.raises(nc.ClosedError):
            pool.acquire_blocking(MIB, timeout=1)
        pool.close()
        assert not woken

    with forked(act):
        done.set()
        holder.join(DEADLINE)
        other.release()
        thread.join(DEADLINE)
    assert found
    found.pop().release()
    lease.release()


def test_a_fork_in_the_middle_of_a_wait(pool):
    """A signal handler's: the child's call ends, and the parent's goes on."""
    lease, rest = pool.acquire_blocking(MIB), pool.acquire_blocking(MIB)
    parent, outcome = os.getpid(), []

    def fork(number, frame):
        child = os.fork()
        if child:
            outcome.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            lease.release()

    before = signal.signal(signal.SIGUSR1, fork)
    thread = threading.Thread(
        target=lambda: (
            until(lambda: pool.stats()["waits"] == 1),
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1),
        )
    )
    try:
        thread.start()
        try:
            pool.acquire_blocking(MIB, timeout=DEADLINE).release()
        except nc.ClosedError:
            if os.getpid() != parent:
                os._exit(7)
            raise
        finally:
            if os.getpid() != parent:
                os._exit(1)
        thread.join(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert outcome == [7]
    rest.release()


def test_a_pool_that_nothing_was_leased_from(tmp_path):
    """It works in a child as its connector does, which was not open either."""
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path[:] = {sys.path!r}\n"
        """
import os, threading
import numpy as np
import nixl_connect as nc
connector = nc.Connector()
pool = nc.HostPool(connector, max_bytes=1 << 20, slab_bytes=1 << 20)
held, done = threading.Event(), threading.Event()
def hold():
    with pool._slabs._lock:
        held.set()
        done.wait(20)
thread = threading.Thread(target=hold)
thread.start()
held.wait(20)
child = os.fork()
if child == 0:
    with pool.acquire_blocking(100) as lease:
        np.frombuffer(lease.view, np.uint8)[:] = 5
        with connector.create_readable_blocking(lease.descriptor) as offered, nc.Connector() as two:
            into = np.zeros(100, np.uint8)
            read = two.begin_read_blocking(offered.metadata(), nc.Descriptor(into))
            read.wait_for_completion_blocking(20)
    os._exit(7 if (into == 5).all() else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join(20)
pool.acquire_blocking(100).release()
print(status)
"""
    )
    assert run_python(str(program)).stdout.splitlines()[-1] == "7"


def test_a_kernel_that_shares_with_children(pool, connector, monkeypatch, caplog):
    """Then the pages are shared, lest the parent's move; and a child is refused all the same."""

    class Mapping(mmap.mmap):
        def madvise(self, *advice):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(slab.mmap, "mmap", Mapping)
    lease = pool.acquire_blocking(MIB)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    array = np.frombuffer(lease.view, np.uint8)
    array[:] = 1
    before = frames(lease.descriptor.ptr, MIB)

    def act():
        with pytest.raises(nc.ClosedError):
            pool.acquire_blocking(100)
        pool.close()

    with forked(act):
        array[:] = 2
        assert frames(lease.descriptor.ptr, MIB) == before

"""Registrations with a real agent: shared, counted, and gone when nobody needs them."""

import ctypes
import logging
import threading
import weakref

import numpy as np
import pytest
from calls import failing, led
from together import run_together

import nixl_connect as nc
from nixl_connect._native import envelope
from nixl_connect._native.agent import Agent
from nixl_connect._native.hold import Hold
from nixl_connect._native.packing import Regions
from nixl_connect._native.registry import RefusedError
from nixl_connect.backend import library
from nixl_connect.memory.device import HOST, Device
from nixl_connect.peers import registrations
from nixl_connect.peers.registrations import registry_of


@pytest.fixture
def agent():
    library.load()
    agent = Agent(b"registrations")
    agent.create_backend(b"UCX", {})
    yield agent
    agent.close()


@pytest.fixture
def registry(agent):
    registry = registry_of(agent)
    yield registry
    assert known(agent) == []
    assert len(registry) == registry.registered_bytes == registry.left == 0


def known(agent):
    """What NIXL holds, by its own word: address and length of each region."""
    sections = envelope.parse(agent.metadata()).sections
    return sorted((address, size) for item in sections for address, size, _, _ in item.regions)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ((0, 1, 7, (4096, 7, 0)), "7 bytes at 0x1000 on cpu"),
        ((1, 1, 7, (4096, 7, 3)), "7 bytes at 0x1000 on device 3"),
        ((0, 2, 9, (4096, 7, 0)), "9 bytes in 2 regions from 0x1000 on cpu"),
    ],
)
def test_what_is_logged_of_regions(caplog, told, text):
    with caplog.at_level(logging.DEBUG):
        registrations._report("registered", 0, told)
        registrations._report("kept", -4, told)
    first, second = (record.getMessage() for record in caplog.records)
    assert first == f"registered {text}"
    assert second.startswith(f"NIXL keeps {text} registered: ")


@pytest.fixture
def start():
    """Address of a buffer of 64 KiB."""
    buffer = bytearray(65_536)
    export = ctypes.c_char.from_buffer(buffer)
    yield ctypes.addressof(export)
    del export


def regions(*rows):
    return Regions([(address, size, device.id) for address, size, device in rows])


def take(registry, address, size, device, owner=None):
    hold = Hold(registry)
    hold.acquire(regions((address, size, device)), device.mem_type, [owner])
    return hold


def covers(registry, address, size, device):
    return registry.covers(regions((address, size, device)), device.mem_type)


def row(hold):
    (found,) = hold.rows()
    return found


def covering(registry, address, size, device):
    hold = Hold(registry)
    hold.cover(regions((address, size, device)), device.mem_type)
    return hold


def test_first_and_last(agent, registry, start):
    hold = take(registry, start, 100, HOST)
    assert row(hold) == (start, 100, 0)
    assert known(agent) == [(start, 100)]
    assert (len(registry), registry.registered_bytes) == (1, 100)
    assert covers(registry, start, 100, HOST)
    hold.release()
    assert known(agent) == []
    assert not covers(registry, start, 100, HOST)
    assert hold.rows() == []
    hold.release()


def test_shared_by_all_who_need_it(agent, registry, start):
    first = take(registry, start, 4096, HOST)
    others = [take(registry, start, 4096, HOST) for _ in range(3)]
    assert known(agent) == [(start, 4096)]
    for item in others:
        item.release()
        assert known(agent) == [(start, 4096)]
    first.release()
    assert known(agent) == []


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 4095), (1, 4095), (100, 50), (4095, 1)])
def test_slice_of_what_is_registered(agent, registry, start, offset, size):
    whole = take(registry, start, 4096, HOST)
    assert covers(registry, start + offset, size, HOST)
    part = take(registry, start + offset, size, HOST)
    assert row(part) == (start, 4096, 0)
    whole.release()
    # The slice alone keeps all of it.
    assert known(agent) == [(start, 4096)]
    part.release()


@pytest.mark.parametrize(("offset", "size"), [(1, 4096), (0, 4097), (4096, 1), (-1, 2), (-1, 4098)])
def test_what_is_not_within_is_registered_anew(agent, registry, start, offset, size):
    start += 8192
    one = take(registry, start, 4096, HOST)
    assert not covers(registry, start + offset, size, HOST)
    two = take(registry, start + offset, size, HOST)
    assert known(agent) == sorted([(start, 4096), (start + offset, size)])
    one.release()
    assert known(agent) == [(start + offset, size)]
    two.release()


def test_larger_one_serves_once_it_is_there(agent, registry, start):
    small = take(registry, start + 10, 10, HOST)
    large = take(registry, start, 100, HOST)
    # NIXL would not find the larger one behind the smaller: the slice gets one of its own.
    hidden = take(registry, start + 50, 10, HOST)
    assert row(hidden) == (start + 50, 10, 0)
    hidden.release()
    slice_ = take(registry, start + 5, 10, HOST)
    assert row(slice_) == (start, 100, 0)
    both = covering(registry, start + 12, 4, HOST)
    assert sorted(both.rows()) == sorted([row(small), row(large)])
    assert covering(registry, start + 200, 1, HOST).rows() == []
    small.release()
    large.release()
    assert len(known(agent)) == 2  # held by `both` and the slice
    both.release()
    slice_.release()


def test_each_is_named_once_where_rows_share_it(registry, start):
    whole = take(registry, start, 4096, HOST)
    rows = regions(*[(start + 8 * i, 8, HOST) for i in range(100)])
    hold = Hold(registry)
    assert hold.cover(rows, 0)
    assert len(hold) == 1
    assert not hold.cover(regions((start, 8, HOST), (start + 4090, 8, HOST)), 0)
    assert len(hold) == 1
    hold.release()
    whole.release()


def test_devices_are_apart(registry, start):
    hold = take(registry, start, 100, HOST)
    assert not covers(registry, start, 100, Device("cuda:0"))
    assert covering(registry, start, 100, Device("cuda:0")).rows() == []
    hold.release()


def test_the_memory_lives_as_long_as_it_is_registered(registry):
    """Whoever made the registration may be gone, and whoever shares it need not know the memory."""
    memory = np.zeros(100, np.uint8)
    alive = weakref.ref(memory)
    start = memory.ctypes.data
    first = take(registry, start, 100, HOST, owner=memory)
    second = take(registry, start + 10, 10, HOST)
    del memory
    first.release()
    assert alive() is not None
    second.release()
    assert alive() is None


def test_many_in_any_order(agent, registry):
    """The same region twice among them, and some that are there: each is registered once."""
    memory = np.zeros(100_000, np.uint8)
    start = memory.ctypes.data
    order = np.random.default_rng(1).permutation(2000)
    before = Hold(registry)
    before.acquire(regions(*[(start + 40 * i, 30, HOST) for i in range(0, 2000, 7)]), 0)
    rows = [(start + 40 * int(i), 30, HOST) for i in order]
    hold = Hold(registry)
    hold.acquire(regions(*rows, *rows[:500]), 0, [memory] * 2500)
    assert known(agent) == [(start + 40 * i, 30) for i in range(2000)]
    assert len(hold.rows()) == len(registry) == 2000
    before.release()
    assert len(registry) == 2000
    hold.release()
    # That many wait for somebody with patience.
    assert (len(registry), registry.left) == (0, 2000)
    assert len(known(agent)) == 2000
    take(registry, start, 1, HOST).release()


@pytest.fixture
def no_gpu():
    if nc.Connector().is_cuda_available:
        pytest.skip("the device memory named here would exist")


def test_failure_leaves_nothing(agent, registry, start, no_gpu):
    device = Device("cuda:0")
    for _ in range(2):  # the second time would wait for ever if the range had stayed busy
        with pytest.raises(RefusedError) as caught:
            take(registry, start, 100, device)
        assert caught.value.args[1] == (device.mem_type, 1, 100, (start, 100, 0))
    assert known(agent) == []
    assert len(registry) == 0
    assert registry.registered_bytes == 0
    assert not covers(registry, start, 100, device)


@pytest.mark.parametrize("rows", [1, 20])
def test_what_nixl_refuses_leaves_what_was_there(agent, registry, start, rows):
    one = take(registry, start, 100, HOST)
    hold = Hold(registry)
    wanted = regions(*[(start + 200 * i, 150, HOST) for i in range(rows)])
    with failing("register_mem"), pytest.raises(RefusedError):
        hold.acquire(wanted, 0)
    assert known(agent) == [(start, 100)]
    assert len(registry) == 1
    one.release()


def test_what_nixl_does_not_find_is_forgotten(agent, start):
    """Among others that it does; these go all the same."""
    registry = registry_of(agent)
    hold = Hold(registry)
    hold.acquire(regions(*[(start + 200 * i, 150, HOST) for i in range(5)]), 0)
    with failing("deregister_mem", -6, times=2):
        hold.release()
    assert len(registry) == registry.left == 0
    # The first call was for all, the second for one of them, of which NIXL knows better.
    ((address, size),) = known(agent)
    take(registry, address - 1, size + 2, HOST).release()
    assert known(agent) == [(address, size)]


def test_failure_wakes_those_who_wait_for_the_same(registry, start, no_gpu):
    def work():
        with pytest.raises(RefusedError):
            take(registry, start, 8, Device("cuda:0"))

    run_together(8, work)


def test_release_after_the_agent_closed(start):
    agent = Agent(b"closed")
    agent.create_backend(b"UCX", {})
    registry = registry_of(agent)
    hold = take(registry, start, 100, HOST)
    agent.close()
    hold.release()
    assert len(registry) == registry.left == 0


def test_threads_that_want_the_same(agent, registry, start):
    def work():
        hold = take(registry, start, 4096, HOST)
        all_have_it.wait(20)
        assert known(agent) == [(start, 4096)]
        all_have_looked.wait(20)
        hold.release()

    all_have_it, all_have_looked = threading.Barrier(6), threading.Barrier(6)
    for _ in range(30):
        run_together(6, work)
        assert known(agent) == []


def test_a_later_row_does_not_hide_an_earlier_one(agent, registry, start):
    pool = take(registry, start, 4096, HOST)
    # The second row leaves the pool and gets a registration that begins before the first row.
    hold = Hold(registry)
    hold.acquire(regions((start + 100, 10, HOST), (start + 50, 8192, HOST)), 0)
    assert hold.rows() == [(start + 50, 8192, 0)]  # NIXL finds it for both
    assert len(known(agent)) == 2
    pool.release()
    hold.release()


def test_what_is_given_up_while_others_are_deregistered(agent, registry, start):
    """NIXL has it still: who needs it then shares it, and it is not registered twice."""
    one, other = take(registry, start, 100, HOST), take(registry, start + 200, 100, HOST)
    shared = []

    def deregister(original, *arguments):
        if not shared:
            shared.append(None)
            other.release()  # the gate is not to be had, so it stays for later
        return original(*arguments)

    registered = []

    def register(original, *arguments):
        registered.append(arguments)
        return original(*arguments)

    with led("deregister_mem", deregister), led("register_mem", register):
        del one
        again = Hold(registry)
        again.acquire(regions((start + 200, 100, HOST)), 0)
    assert shared
    assert registered == []
    assert known(agent) == [(start + 200, 100)]
    assert (len(registry), registry.left) == (1, 0)
    again.release()


def test_what_a_finalizer_leaves_is_deregistered_by_the_next(agent, registry, start):
    hold = take(registry, start, 100, HOST)
    del hold
    assert registry.left == 1
    assert len(registry) == 0
    assert known(agent) == [(start, 100)]
    take(registry, start, 100, HOST).release()


def test_a_pool_registered_after_its_slice(make_connector):
    """What NIXL overlooks is no reason to fail, nor to reconnect."""
    owner, mover = make_connector(), make_connector()
    pool, source = bytearray(4096), bytes(range(8)) * 16
    pending = mover.create_writable_blocking(nc.Descriptor(memoryview(pool)[16:32]))
    whole = nc.Descriptor(pool)
    whole.register_memory(mover)
    for at in (2048, 64, 16, 20, 0):
        readable = owner.create_readable_blocking(nc.Descriptor(source[:8]))
        target = nc.Descriptor(memoryview(pool)[at : at + 8])
        with mover.begin_read_blocking(readable.metadata(), target) as operation:
            operation.wait_for_completion_blocking(10)
        assert pool[at : at + 8] == source[:8]
    assert mover.stats()["peers"]["reloads"] == 0
    pending.cancel()


@pytest.mark.timeout(120)
def test_registrations_that_leave_while_a_request_is_built(make_connector):
    """A request of many rows, while others release what covers them: each byte arrives."""
    owner, mover = make_connector(), make_connector()
    count, item = 2000, 64
    source = np.arange(count * item, dtype=np.uint32).view(np.uint8)[: count * item].copy()
    target = np.zeros_like(source)
    stop = threading.Event()
    errors = []

    def disturb():
        try:
            while not stop.is_set():
                with mover.create_readable_blocking(nc.Descriptor(target)):
                    pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=disturb, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            target[:] = 0
            rows = [slice(i * item, (i + 1) * item) for i in range(count)]
            readable = owner.create_readable_blocking([nc.Descriptor(source[row]) for row in rows])
            into = [nc.Descriptor(target[row]) for row in rows]
            with mover.begin_read_blocking(readable.metadata(), into) as operation:
                operation.wait_for_completion_blocking(30)
            assert (target == source).all()
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert not errors, errors


def test_threads_that_come_and_go(agent, registry, start):
    """Overlapping ranges, registered and released in any order: what is held is always known."""
    spans = [(0, 4096), (0, 4096), (1024, 1024), (0, 8192), (4096, 4096), (2048, 100)]
    numbers = iter(range(100))

    def work():
        random = np.random.default_rng(next(numbers))
        for _ in range(200):
            offset, size = spans[random.integers(len(spans))]
            hold = take(registry, start + offset, size, HOST)
            at, length, _ = row(hold)
            assert at <= start + offset
            assert at + length >= start + offset + size
            assert covers(registry, start + offset, size, HOST)
            assert (at, length) in known(agent)
            hold.release()

    run_together(4, work)


# --- as operations use them -----------------------------------------------------------------------


def count(connector):
    return connector.stats()["registrations"]["count"]


def test_operation_never_deregisters_what_was_registered_before(connector):
    pooled, fresh = nc.Descriptor(np.zeros(64, np.uint8)), nc.Descriptor(np.zeros(64, np.uint8))
    pooled.register_memory(connector)
    operation = connector.create_writable_blocking([pooled, fresh])
    assert (pooled.is_registered, fresh.is_registered) == (True, True)
    assert count(connector) == 2
    operation.cancel()
    assert (pooled.is_registered, fresh.is_registered) == (True, False)
    assert count(connector) == 1


def test_one_array_in_many_operations(connector):
    array = np.zeros(4096, np.uint8)
    operations = [connector.create_readable_blocking(nc.Descriptor(array)) for _ in range(10)]
    assert connector.stats()["registrations"] == {"count": 1, "bytes": 4096}
    for operation in operations[:-1]:
        operation.cancel()
        assert count(connector) == 1
    operations[-1].cancel()
    assert count(connector) == 0


def test_overlapping_descriptors_of_one_operation(connector):
    array = np.zeros(100, np.uint8)
    parts = [nc.Descriptor(part) for part in (array[:60], array[40:], array[10:20], array[:60])]
    with connector.create_readable_blocking(parts) as operation:
        assert len(operation.metadata().descriptors) == 4
        assert connector.stats()["registrations"] == {"count": 3, "bytes": 130}
    assert count(connector) == 0


def test_second_region_refused_leaves_no_first(connector, no_gpu):
    owner = bytearray(64)
    good = nc.Descriptor((4096, 64, "cuda:0"))
    for make in (connector.create_readable_blocking, connector.create_writable_blocking):
        with pytest.raises(nc.RegistrationError):
            make([good])
    with pytest.raises(nc.RegistrationError):
        good.register_memory(connector)
    assert not good.is_registered
    # Of two devices: refused before the first is touched.
    with pytest.raises(ValueError, match="kind"):
        connector.create_readable_blocking([nc.Descriptor(owner), good])
    assert connector.stats()["registrations"] == {"count": 0, "bytes": 0}
    assert connector.stats()["operations"]["held"] == 0

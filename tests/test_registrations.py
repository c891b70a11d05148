"""Registrations with a real agent: shared, counted, and gone when nobody needs them."""

import ctypes
import threading

import numpy as np
import pytest
from together import run_together

import nixl_connect as nc
from nixl_connect import library
from nixl_connect._native import envelope
from nixl_connect._native.agent import Agent
from nixl_connect._native.packing import Regions
from nixl_connect._native.ranges import neighbours
from nixl_connect.device import HOST, Device
from nixl_connect.registrations import Registrations


@pytest.fixture
def agent():
    library.load()
    agent = Agent(b"registrations")
    agent.create_backend(b"UCX", {})
    yield agent
    agent.close()


@pytest.fixture
def registrations(agent):
    registrations = Registrations(agent)
    yield registrations
    assert known(agent) == []
    assert len(registrations) == registrations.registered_bytes == 0


def known(agent):
    """What NIXL holds, by its own word: address and length of each region."""
    sections = envelope.parse(agent.metadata()).sections
    return sorted((address, size) for item in sections for address, size, _, _ in item.regions)


@pytest.fixture
def start():
    """Address of a buffer of 64 KiB."""
    buffer = bytearray(65_536)
    export = ctypes.c_char.from_buffer(buffer)
    yield ctypes.addressof(export)
    del export


def regions(*rows):
    return Regions([(address, size, device.id) for address, size, device in rows])


def take(registrations, address, size, device):
    held = []
    registrations.acquire(regions((address, size, device)), device.mem_type, held)
    (registration,) = held
    return registration


def give(registrations, registration):
    registrations.release([registration])


def covers(registrations, address, size, device):
    return registrations.covers(regions((address, size, device)), device.mem_type)


def covering(registrations, address, size, device):
    held = []
    registrations.acquire_covering(regions((address, size, device)), device.mem_type, held)
    return held


def test_first_and_last(agent, registrations, start):
    registration = take(registrations, start, 100, HOST)
    assert registration.row == (start, 100, 0)
    assert known(agent) == [(start, 100)]
    assert (len(registrations), registrations.registered_bytes) == (1, 100)
    assert covers(registrations, start, 100, HOST)
    give(registrations, registration)
    assert known(agent) == []
    assert not covers(registrations, start, 100, HOST)


def test_shared_by_all_who_need_it(agent, registrations, start):
    first = take(registrations, start, 4096, HOST)
    others = [take(registrations, start, 4096, HOST) for _ in range(3)]
    assert all(item is first for item in others)
    assert known(agent) == [(start, 4096)]
    for item in others:
        give(registrations, item)
        assert known(agent) == [(start, 4096)]
    give(registrations, first)
    assert known(agent) == []


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 4095), (1, 4095), (100, 50), (4095, 1)])
def test_slice_of_what_is_registered(agent, registrations, start, offset, size):
    whole = take(registrations, start, 4096, HOST)
    assert covers(registrations, start + offset, size, HOST)
    assert take(registrations, start + offset, size, HOST) is whole
    give(registrations, whole)
    # The slice alone keeps all of it.
    assert known(agent) == [(start, 4096)]
    give(registrations, whole)


@pytest.mark.parametrize(("offset", "size"), [(1, 4096), (0, 4097), (4096, 1), (-1, 2), (-1, 4098)])
def test_what_is_not_within_is_registered_anew(agent, registrations, start, offset, size):
    start += 8192
    one = take(registrations, start, 4096, HOST)
    assert not covers(registrations, start + offset, size, HOST)
    two = take(registrations, start + offset, size, HOST)
    assert two is not one
    assert known(agent) == sorted([(start, 4096), (start + offset, size)])
    give(registrations, one)
    assert known(agent) == [(start + offset, size)]
    give(registrations, two)


def test_larger_one_serves_once_it_is_there(agent, registrations, start):
    small = take(registrations, start + 10, 10, HOST)
    large = take(registrations, start, 100, HOST)
    # NIXL would not find the larger one behind the smaller: the slice gets one of its own.
    hidden = take(registrations, start + 50, 10, HOST)
    assert hidden.row == (start + 50, 10, 0)
    give(registrations, hidden)
    slice_ = take(registrations, start + 5, 10, HOST)
    assert slice_ is large
    held = covering(registrations, start + 12, 4, HOST)
    assert sorted(item.row for item in held) == sorted([small.row, large.row])
    assert covering(registrations, start + 200, 1, HOST) == []
    give(registrations, small)
    give(registrations, large)
    assert len(known(agent)) == 2  # held by `held` and the slice
    for item in [*held, large]:
        give(registrations, item)


def test_devices_are_apart(registrations, start):
    registration = take(registrations, start, 100, HOST)
    assert not covers(registrations, start, 100, Device("cuda:0"))
    assert covering(registrations, start, 100, Device("cuda:0")) == []
    give(registrations, registration)


@pytest.fixture
def no_gpu():
    if nc.Connector().is_cuda_available:
        pytest.skip("the device memory named here would exist")


def test_failure_leaves_nothing(agent, registrations, start, no_gpu):
    device = Device("cuda:0")
    for _ in range(2):  # the second time would wait for ever if the range had stayed busy
        with pytest.raises(nc.RegistrationError, match=f"100 bytes at {start:#x} on device 0"):
            take(registrations, start, 100, device)
    assert known(agent) == []
    assert len(registrations) == 0
    assert registrations.registered_bytes == 0
    assert not covers(registrations, start, 100, device)


def test_failure_wakes_those_who_wait_for_the_same(registrations, start, no_gpu):
    def work():
        with pytest.raises(nc.RegistrationError):
            take(registrations, start, 8, Device("cuda:0"))

    run_together(8, work)


def test_release_after_the_agent_closed(start):
    agent = Agent(b"closed")
    agent.create_backend(b"UCX", {})
    registrations = Registrations(agent)
    registration = take(registrations, start, 100, HOST)
    agent.close()
    give(registrations, registration)
    assert len(registrations) == 0


def test_threads_that_want_the_same(agent, registrations, start):
    def work():
        registration = take(registrations, start, 4096, HOST)
        all_have_it.wait(20)
        assert known(agent) == [(start, 4096)]
        assert registration.holders == 6
        all_have_looked.wait(20)
        give(registrations, registration)
        return registration

    all_have_it, all_have_looked = threading.Barrier(6), threading.Barrier(6)
    for _ in range(30):
        acquired = run_together(6, work)
        assert all(item is acquired[0] for item in acquired)
        assert known(agent) == []


def test_a_later_row_does_not_hide_an_earlier_one(agent, registrations, start):
    pool = take(registrations, start, 4096, HOST)
    # The second row leaves the pool and gets a registration that begins before the first row.
    rows = regions((start + 100, 10, HOST), (start + 50, 8192, HOST))
    acquired = []
    registrations.acquire(rows, HOST.mem_type, acquired)
    assert (start + 100, 10) in known(agent) or (start + 50, 8192) in known(agent)
    assert None not in neighbours(registrations._maps[HOST.mem_type], rows)
    registrations.release([pool, *acquired])


def test_busy_for_other_threads_only(registrations):
    assert not registrations.is_busy
    assert not registrations.is_held_here
    with registrations.lock:
        assert registrations.is_held_here
        assert run_together(1, lambda: (registrations.is_busy, registrations.is_held_here)) == [
            (True, False)
        ]
    assert not registrations.is_busy


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


def test_threads_that_come_and_go(agent, registrations, start):
    """Overlapping ranges, registered and released in any order: what is held is always known."""
    spans = [(0, 4096), (0, 4096), (1024, 1024), (0, 8192), (4096, 4096), (2048, 100)]
    numbers = iter(range(100))

    def work():
        random = np.random.default_rng(next(numbers))
        for _ in range(200):
            offset, size = spans[random.integers(len(spans))]
            registration = take(registrations, start + offset, size, HOST)
            at, length, _ = registration.row
            assert at <= start + offset
            assert at + length >= start + offset + size
            assert covers(registrations, start + offset, size, HOST)
            assert (at, length) in known(agent)
            give(registrations, registration)

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

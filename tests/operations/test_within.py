"""Connectors that move bytes within themselves, and operations of theirs that end in any order."""

import asyncio
import gc
import mmap
import random
import weakref

import numpy as np
import pytest
from holding import held
from processes import DEADLINE, until

import nixl_connect as nc

KINDS = ["read", "write"]
SIZES = [3, 100_000, 300_000, 3_000_000]


class Memory:
    """Memory that is unmapped as soon as nobody holds it, so that whoever touches it then dies."""

    def __init__(self, size):
        self.map = mmap.mmap(-1, size)

    @property
    def __array_interface__(self):
        address = np.frombuffer(self.map, np.uint8).ctypes.data
        return {"version": 3, "shape": (len(self.map),), "typestr": "|u1", "data": (address, False)}


@pytest.fixture(params=["plain", "a/b"])
def connector(make_connector, request):
    """Also one that NIXL knows by another name."""
    return make_connector(request.param, quarantine=0)


@pytest.fixture
def nothing_left(connector):
    yield
    until(lambda: not any(held(connector).values()), collect=True)


def offer(connector, kind, memory, **options):
    make = connector.create_readable_blocking
    if kind == "write":
        make = connector.create_writable_blocking
    return make(nc.Descriptor(memory), **options)


def prepare(connector, kind, metadata, local):
    if kind == "read":
        return connector.prepare_read_blocking(metadata, nc.Descriptor(local))
    return connector.prepare_write_blocking(nc.Descriptor(local), metadata)


def begin(connector, kind, metadata, local):
    if kind == "read":
        return connector.begin_read_blocking(metadata, nc.Descriptor(local))
    return connector.begin_write_blocking(nc.Descriptor(local), metadata)


def end_by_cancelling(operation):
    operation.cancel()


def end_by_deadline(operation):
    with pytest.raises(nc.TransferTimeoutError):
        operation.wait_for_completion_blocking(DEADLINE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("end", [end_by_cancelling, end_by_deadline])
@pytest.mark.usefixtures("nothing_left")
def test_a_prepared_transfer_outlives_the_passive_operation(connector, kind, size, end):
    """Its memory, too: the operation was the last to hold it."""
    memory, local = Memory(size), np.zeros(size, np.uint8)
    memory.map[:] = bytes([1]) * size
    alive = weakref.ref(memory.map)
    timeout = 1.0 if end is end_by_deadline else None
    operation = offer(connector, kind, memory, timeout=timeout)
    with prepare(connector, kind, operation.metadata(), local) as transfer:
        end(operation)
        del operation, memory
        until(lambda: held(connector)["operations"] == 1, collect=True)
        for value in (2, 3):
            if kind == "read":
                alive().__setitem__(slice(None), bytes([value]) * size)
            else:
                local[:] = value
            transfer.transfer_blocking(DEADLINE)
            assert alive()[:] == local.tobytes() == bytes([value]) * size
    del transfer
    until(lambda: alive() is None, collect=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("nothing_left")
def test_a_prepared_transfer_outlives_a_descriptor_that_was_registered(connector, kind):
    """Metadata may name memory that belongs to no operation."""
    memory, local = Memory(4096), np.zeros(4096, np.uint8)
    registered = nc.Descriptor(memory)
    registered.register_memory(connector)
    operation = offer(connector, kind, memory)
    made = operation.metadata()
    operation.cancel()
    alive = weakref.ref(memory.map)
    own = nc.RdmaMetadata(
        descriptors=made.descriptors,
        nixl_metadata=made.nixl_metadata,
        notification_key="a key of its own",
        operation_kind=made.operation_kind,
    )
    with prepare(connector, kind, own, local) as transfer:
        del operation, memory, registered
        until(lambda: held(connector)["operations"] == 1, collect=True)
        transfer.transfer_blocking(DEADLINE)
        assert alive()[:] == local.tobytes()
    del transfer
    until(lambda: alive() is None, collect=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("nothing_left")
def test_metadata_of_an_operation_that_has_ended(connector, kind):
    operation = offer(connector, kind, bytearray(64))
    metadata = operation.metadata()
    operation.cancel()
    until(lambda: not held(connector)["registrations"])
    for call in (begin, prepare):
        with pytest.raises(nc.TransferError, match="not registered; the operation that they are"):
            call(connector, kind, metadata, bytearray(64))


@pytest.mark.usefixtures("nothing_left")
def test_memory_in_the_shadow_of_a_slice(connector):
    """NIXL looks at the neighbours of a region alone, and would not find the whole behind one."""
    array = np.arange(65_536, dtype=np.uint32)
    held_before = nc.Descriptor(array[4:8])
    held_before.register_memory(connector)
    indices = range(1, 256, 2)
    target = np.zeros(len(indices) * 256, np.uint32)
    with connector.create_readable_blocking(nc.Blocks(array, 1024, indices)) as operation:
        parts = [nc.Descriptor(part) for part in target.reshape(-1, 256)]
        read = connector.begin_read_blocking(operation.metadata(), parts)
        read.wait_for_completion_blocking(DEADLINE)
        operation.wait_for_completion_blocking(DEADLINE)
    assert (target.reshape(-1, 256) == array.reshape(-1, 256)[1::2]).all()
    held_before.deregister_with_connector(connector._connection)


@pytest.mark.parametrize("size", [100, 300_000, 2_000_000])
@pytest.mark.usefixtures("nothing_left")
def test_operations_that_end_in_any_order(connector, size):
    """Queued or in flight when the passive one ends: what is complete has moved all bytes."""
    rng = random.Random(size)
    for number in range(60):
        kind = rng.choice(KINDS)
        memory, local = Memory(size), np.zeros(size, np.uint8)
        memory.map[:] = bytes([number]) * size
        pair = [offer(connector, kind, memory)]
        metadata = pair[0].metadata()
        operation = begin(connector, kind, metadata, local)
        pair.append(operation)
        del memory
        rng.shuffle(pair)
        while pair:
            if rng.random() < 0.5:
                pair[-1].cancel()
            pair.pop()
        try:
            operation.wait_for_completion_blocking(DEADLINE)
        except nc.OperationCancelledError:
            continue
        if kind == "read":
            assert (local == number).all()


@pytest.mark.usefixtures("nothing_left")
def test_tasks_that_are_cancelled_at_any_moment(connector):
    rng = random.Random(1)

    async def one(size):
        memory, local = Memory(size), np.zeros(size, np.uint8)
        if rng.random() < 0.5:
            offered = await connector.create_readable(nc.Descriptor(memory))
            moved = await connector.begin_read(offered.metadata(), nc.Descriptor(local))
        else:
            offered = await connector.create_writable(nc.Descriptor(memory))
            moved = await connector.begin_write(nc.Descriptor(local), offered.metadata())
        del memory
        await asyncio.gather(
            *(item.wait_for_completion(DEADLINE) for item in rng.sample([offered, moved], 2))
        )

    async def all_of_them():
        for _ in range(40):
            tasks = [
                asyncio.ensure_future(one(rng.choice([100, 300_000, 2_000_000]))) for _ in range(6)
            ]
            for task in tasks:
                asyncio.get_running_loop().call_later(rng.uniform(0, 0.004), task.cancel)
            await asyncio.wait(tasks, timeout=DEADLINE)
            for task in tasks:
                assert task.done()
                assert task.cancelled() or task.exception() is None

    asyncio.run(all_of_them())
    gc.collect()

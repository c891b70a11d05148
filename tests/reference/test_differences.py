"""What differs from dynamo.nixl_connect on purpose, as docs/howto/migrating.md has it."""

import asyncio
import copy
import pickle

import numpy as np
import pytest

import nixl_connect as nc

DEADLINE = 20


@pytest.fixture
def pair(make_connector):
    return make_connector(), make_connector()


def test_a_transfer_starts_without_being_looked_at(pair):
    """Neither its status nor its end is asked for; and what is changed later is not sent."""
    owner, mover = pair

    async def main():
        source, target = np.full(4096, 1, np.uint8), np.zeros(4096, np.uint8)
        writable = await owner.create_writable(nc.Descriptor(target))
        write = await mover.begin_write(nc.Descriptor(source), writable.metadata())
        await writable.wait_for_completion(DEADLINE)
        source[:] = 5
        await write.wait_for_completion(DEADLINE)
        assert (target == 1).all()

    asyncio.run(main())


def test_both_encodings(connector):
    with connector.create_readable_blocking(nc.Descriptor(b"abc")) as readable:
        first = readable.metadata()
        other = readable.metadata(hex_encode=True)
        assert first.nixl_metadata.startswith("b64:")
        assert bytes.fromhex(other.nixl_metadata)
        assert readable.metadata() is first


def test_leaving_early_cancels(connector):
    with connector.create_readable_blocking(nc.Descriptor(b"abc")) as readable:
        pass
    assert readable.status is nc.OperationStatus.CANCELLED
    with pytest.raises(nc.OperationCancelledError):
        readable.wait_for_completion_blocking(DEADLINE)


def test_cancelling_after_the_end(pair):
    owner, mover = pair
    target = bytearray(3)
    readable = owner.create_readable_blocking(nc.Descriptor(b"abc"))
    read = mover.begin_read_blocking(readable.metadata(), nc.Descriptor(target))
    read.wait_for_completion_blocking(DEADLINE)
    readable.wait_for_completion_blocking(DEADLINE)
    for operation in (read, readable):
        operation.cancel()
        assert operation.status is nc.OperationStatus.COMPLETE
    assert [item.size for item in read.results()] == [3]


def test_deregistering_what_is_not_registered(connector):
    descriptor = nc.Descriptor(b"abc")
    descriptor.deregister_with_connector(connector._open())
    assert not descriptor.is_registered


def test_one_descriptor_for_two_connectors(pair):
    descriptor = nc.Descriptor(b"abc")
    operations = [connector.create_readable_blocking(descriptor) for connector in pair]
    assert len({operation.metadata().nixl_metadata for operation in operations}) == 2
    for operation in operations:
        operation.cancel()


def test_a_connector_without_a_name():
    with pytest.raises(nc.ArgumentError):
        nc.Connector("")


@pytest.mark.parametrize("name", ["cpu:1", "cuda1", "cuda:1:2", "cuda:-1"])
def test_devices_that_are_none(name):
    with pytest.raises(nc.ArgumentError):
        nc.Device(name)


def test_descriptors_are_not_copied():
    descriptor = nc.Descriptor(b"abc")
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="send its metadata"):
            attempt(descriptor)

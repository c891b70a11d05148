"""What programs of dynamo.nixl_connect use beside its public names, as they use it."""

import asyncio
import gc

import numpy as np
import pydantic
import pytest
from processes import until

import nixl_connect

DEADLINE = 20
DATA = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)


@pytest.fixture
def connectors(make_connector):
    return make_connector(), make_connector()


def run(main):
    return asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_a_connection_that_is_made_in_advance(connectors):
    """To register pools with, before there is an operation."""
    connector, _ = connectors

    async def main():
        connection = await connector._create_connection()
        assert connection is await connector._create_connection()
        assert connection.connector is connector
        assert connection.name.startswith(connector.name)
        assert isinstance(connection.metadata, bytes)
        descriptor = nixl_connect.Descriptor(DATA)
        descriptor.register_with_connector(connection)
        assert descriptor.is_registered
        with await connector.create_readable(descriptor) as operation:
            assert operation.connection is connection
        assert descriptor.is_registered
        descriptor.deregister_with_connector(connection)
        assert not descriptor.is_registered

    run(main)


def test_a_connection_by_hand(connectors):
    connection = nixl_connect.Connection(connectors[0], 7)
    assert connection.name == f"{connectors[0].name}-7"


def test_a_pool_of_descriptors(connectors):
    """One that is registered once, and shrunk for each item; the whole comes back with it."""
    owner, mover = connectors
    pool = nixl_connect.Descriptor(DATA.copy())
    whole = pool._data_size
    assert whole == 4096
    assert pool._data_ref.nbytes == 4096

    async def main():
        pool.register_with_connector(await owner._create_connection())
        for size in (100, 4096, 1):
            pool._data_size = size
            operation = await owner.create_readable(pool)
            target = np.zeros(size, np.uint8)
            read = await mover.begin_read(
                operation.metadata(), nixl_connect.Descriptor((target, "cpu"))
            )
            await read.wait_for_completion()
            await operation.wait_for_completion()
            assert (target == DATA[:size]).all()
            pool._data_size = whole
            assert pool.is_registered
        assert owner.stats()["registrations"]["count"] == 1

    run(main)


def test_operations_that_are_left_by_hand(connectors):
    """As often as error paths do it, whatever became of them."""
    owner, mover = connectors

    async def main():
        readable = await owner.create_readable(nixl_connect.Descriptor(DATA))
        target = np.zeros_like(DATA)
        read = await mover.begin_read(readable.metadata(), nixl_connect.Descriptor(target))
        await read.wait_for_completion()
        await readable.wait_for_completion()
        writable = await owner.create_writable(nixl_connect.Descriptor(target))
        for operation in (readable, read, writable):
            for _ in range(2):
                assert operation.__exit__(None, None, None) is None
        assert str(readable.status) == str(read.status) == "DONE"
        assert str(writable.status) == "STOP"

    run(main)


def test_a_wait_that_outlives_its_operation(connectors):
    owner, mover = connectors

    async def main():
        async def offer():
            operation = await owner.create_readable(nixl_connect.Descriptor(DATA))
            return operation.metadata(), operation.wait_for_completion()

        metadata, completion = await offer()
        gc.collect()
        target = np.zeros_like(DATA)
        read = await mover.begin_read(metadata, nixl_connect.Descriptor(target))
        await read.wait_for_completion()
        await completion
        assert (target == DATA).all()

    run(main)


class Request(pydantic.BaseModel):
    """As a component hands metadata on."""

    serialized_request: dict | None = None


def test_metadata_as_a_dict_in_another_model(connectors):
    owner, mover = connectors

    async def main():
        readable = await owner.create_readable(nixl_connect.Descriptor(DATA))
        text = Request(serialized_request=readable.metadata().model_dump()).model_dump_json()
        told = Request.model_validate_json(text).serialized_request
        target = np.zeros_like(DATA)
        read = await mover.begin_read(
            nixl_connect.RdmaMetadata.model_validate(told), nixl_connect.Descriptor(target)
        )
        await read.wait_for_completion()
        await readable.wait_for_completion()
        assert (target == DATA).all()

    run(main)


def test_metadata_by_hand(connectors):
    """Of a part of what was offered, with a key of the caller's own, as often as it likes."""
    owner, mover = connectors

    async def main():
        readable = await owner.create_readable(nixl_connect.Descriptor(DATA))
        whole = readable.metadata()
        (region,) = whole.descriptors
        for start in (0, 1000, 0):
            part = nixl_connect.RdmaMetadata(
                descriptors=[
                    nixl_connect.SerializedDescriptor(
                        device=region.device, ptr=region.ptr + start, size=500
                    )
                ],
                nixl_metadata=whole.nixl_metadata,
                notification_key=f"part-{start}",
                operation_kind=int(nixl_connect.OperationKind.READ),
            )
            target = np.zeros(500, np.uint8)
            read = await mover.begin_read(part, nixl_connect.Descriptor((target, "cpu")))
            await read.wait_for_completion()
            assert (target == DATA[start : start + 500]).all()
        assert str(readable.status) == "INIT"

    run(main)


def test_operations_that_nobody_releases(connectors):
    owner, mover = connectors

    async def main():
        for _ in range(20):
            readable = await owner.create_readable(nixl_connect.Descriptor(DATA.copy()))
            read = await mover.begin_read(
                readable.metadata(), nixl_connect.Descriptor(np.zeros_like(DATA))
            )
            await read.wait_for_completion()
            await readable.wait_for_completion()

    run(main)
    until(lambda: owner.stats()["registrations"]["count"] == 0)
    until(lambda: mover.stats()["registrations"]["count"] == 0)

"""Closing, and dropping connectors, with work pending or in flight."""

import asyncio
import gc

import numpy as np
import pytest
from pairs import read
from processes import until

import nixl_connect as nc

STATUS = nc.OperationStatus


def test_a_descriptor_does_not_keep_a_connector_open():
    connector = nc.Connector(quarantine=0)
    descriptor = nc.Descriptor(bytearray(10))
    operation = connector.create_readable_blocking(descriptor)
    assert descriptor.is_registered
    engine = connector._connection._engine
    del operation, connector
    gc.collect()
    until(lambda: engine.closed, collect=True)
    assert not descriptor.is_registered


def test_closing_with_work_pending(make_connector):
    connector = make_connector()
    passive = connector.create_readable_blocking(nc.Descriptor(np.arange(10)))

    async def main():
        waiting = asyncio.create_task(passive.wait_for_completion())
        await asyncio.sleep(0.01)
        await connector.close()
        await connector.close()
        with pytest.raises(nc.OperationCancelledError):
            await waiting

    asyncio.run(main())
    with pytest.raises(nc.ClosedError):
        connector.create_readable_blocking(nc.Descriptor(b"abc"))
    with pytest.raises(nc.ClosedError):
        asyncio.run(connector.create_readable(nc.Descriptor(b"abc")))
    with pytest.raises(nc.OperationCancelledError):
        passive.wait_for_completion_blocking(1)
    passive.cancel()


def test_closing_while_a_transfer_is_in_flight(make_connector, hung):
    connector = make_connector(drain=10)
    peer, made = hung(connector)
    operation = read(connector, made["metadata"], np.zeros(1 << 20, np.uint8))

    async def main():
        closing = asyncio.create_task(connector.close())
        with pytest.raises(nc.OperationCancelledError):
            await operation.wait_for_completion(10)
        peer.resume()
        await asyncio.wait_for(closing, 10)

    asyncio.run(main())
    with pytest.raises(Exception, match="OperationCancelledError"):
        peer.do("wait", number=made["id"])


def test_a_dropped_connector_closes_by_itself():
    connector = nc.Connector(quarantine=0)
    operation = connector.create_readable_blocking(nc.Descriptor(np.arange(10)))
    engine = connector._connection._engine
    del connector
    gc.collect()
    assert operation.status is STATUS.INITIALIZED  # it keeps its connection
    del operation
    gc.collect()
    until(lambda: engine.closed, collect=True)

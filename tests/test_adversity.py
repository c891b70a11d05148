"""Exceptions, garbage collection and closed loops at the worst moments."""

import asyncio
import copy
import gc
import pickle
import signal
import time

import numpy as np
import pytest

import nixl_connect as nc


def read(connector, metadata, array, **options):
    return connector.begin_read_blocking(
        nc.RdmaMetadata.model_validate(metadata), nc.Descriptor(array), **options
    )


class StopError(Exception):
    """What the signal handler of a test raises."""


@pytest.fixture
def interrupt_after():
    """Return what raises StopError in the main thread, out of a signal handler."""

    def handler(*_):
        raise StopError

    before = signal.signal(signal.SIGUSR1, handler)
    yield lambda: signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_close_can_be_repeated(make_connector, monkeypatch, interrupt_after):
    connector = make_connector()
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
    engine = connector._connection._engine
    stop = engine.keeper.stop

    def interrupted():
        monkeypatch.setattr(engine.keeper, "stop", stop)
        interrupt_after()

    monkeypatch.setattr(engine.keeper, "stop", interrupted)
    with pytest.raises(StopError):
        connector.close_blocking()
    assert operation.status is nc.OperationStatus.CANCELLED
    with pytest.raises(nc.ClosedError):
        connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
    connector.close_blocking()
    assert not engine.keeper._reaper.is_alive()


def test_closing_after_a_loop_was_closed_with_a_waiter(make_connector):
    connector = make_connector()
    loop = asyncio.new_event_loop()

    async def main():
        operation = await connector.create_readable(nc.Descriptor(bytearray(8)))
        waiting = asyncio.ensure_future(operation.wait_for_completion())
        await asyncio.sleep(0)
        return waiting

    waiting = loop.run_until_complete(main())
    loop.close()
    connector.close_blocking()
    assert connector._connection._engine._shut_down
    waiting.get_coro().close()
    waiting._log_destroy_pending = False


def test_a_cycle_of_garbage_with_an_operation_and_its_connector():
    for _ in range(5):
        connector = nc.Connector(quarantine=0)
        operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
        connector.close_blocking()
        cycle = {"operation": operation, "native": [operation._native], "connector": connector}
        cycle["cycle"] = cycle
        del connector, operation, cycle
        gc.collect()


def test_an_exception_in_the_middle_of_collecting_loses_nothing(make_connector, monkeypatch):
    connector = make_connector()
    keeper = connector._open()._engine.keeper
    operations = [
        connector.create_readable_blocking(nc.Descriptor(bytearray(8)), timeout=0.01)
        for _ in range(5)
    ]
    end = keeper.end
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise StopError
        end(*arguments)

    with keeper._collecting:  # nobody collects before all have ended
        for operation in operations:
            assert operation._native.wait(10)
        monkeypatch.setattr(keeper, "end", interrupted)
    with pytest.raises(StopError):
        keeper.collect()
    keeper.collect()
    deadline = time.monotonic() + 5
    while keeper.holds:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert connector.stats()["registrations"]["count"] == 0


def test_a_finalizer_that_cancels_while_registrations_change(make_connector):
    connector = make_connector()
    registrations = connector._open()._engine.registrations

    class Holder:
        def __init__(self):
            self.operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
            self.me = self

        def __del__(self):
            self.operation.__exit__(None, None, None)

    Holder()
    with registrations.lock, registrations._maps_lock:
        gc.collect()  # the finalizer runs here, and must not change what is being changed
        assert len(registrations) == 1
    deadline = time.monotonic() + 5
    while len(registrations):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_descriptors_are_not_copied(connector):
    descriptor = nc.Descriptor(bytearray(8))
    descriptor.register_memory(connector)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            attempt(descriptor)
    assert descriptor.is_registered


def test_lost_peers_are_evicted(connector, start_peer):
    for _ in range(4):
        peer = start_peer()
        made = peer.do("passive", kind="writable", sizes=[8])
        late = nc.RdmaMetadata.model_validate(
            made["metadata"] | {"notification_key": "a key of nobody's"}
        )
        for failing in (False, True):
            operation = connector.begin_write_blocking(nc.Descriptor(bytes(8)), late)
            if failing:
                with pytest.raises(nc.PeerLostError):
                    operation.wait_for_completion_blocking(10)
            else:
                operation.wait_for_completion_blocking(10)
                peer.stop()
                peer.kill()
    assert connector.stats()["peers"]["count"] == 1
    assert connector.stats()["peers"]["evictions"] == 3


def test_a_remote_and_a_registration_on_a_closed_connector(make_connector):
    connector = make_connector()
    connection = connector._open()
    told = make_connector().create_readable_blocking(nc.Descriptor(bytearray(8))).metadata()
    connector.close_blocking()
    with pytest.raises(nc.ClosedError):
        nc.Remote(connection, told.nixl_metadata)
    with pytest.raises(nc.ClosedError):
        nc.Descriptor(bytearray(8)).register_with_connector(connection)


def test_a_task_cancelled_while_its_operation_begins(connector, peer):
    """The thread that begins it goes on; what it made is dropped, and nothing stays."""
    made = peer.do("passive", kind="readable", sizes=[8 << 20])
    told = nc.RdmaMetadata.model_validate(made["metadata"])

    async def main():
        array = np.zeros(8 << 20, np.uint8)
        begin = asyncio.create_task(connector.begin_read(told, nc.Descriptor(array)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        begin.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begin

    asyncio.run(main())
    deadline = time.monotonic() + 10
    while connector.stats().get("operations", {}).get("held"):
        assert time.monotonic() < deadline
        time.sleep(0.005)

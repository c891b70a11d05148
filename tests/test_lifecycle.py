"""Cancelling, timing out, dropping, closing, and what each side sees of it."""

import asyncio
import contextlib
import gc
import time
import weakref

import numpy as np
import pytest

import nixl_connect as nc

STATUS = nc.OperationStatus


def until(condition, deadline=5.0):
    """Poll a condition that no event announces; fail when it does not come true."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        gc.collect()
        time.sleep(0.002)


def read(connector, metadata, array, **options):
    return connector.begin_read_blocking(
        nc.RdmaMetadata.model_validate(metadata), nc.Descriptor(array), **options
    )


def test_many_waiters_on_loops_and_threads(connector, peer):
    operation = connector.create_readable_blocking(nc.Descriptor(np.arange(100)))
    told = operation.metadata().model_dump()

    async def main():
        waits = [asyncio.create_task(operation.wait_for_completion(10)) for _ in range(5)]
        threads = [
            asyncio.create_task(asyncio.to_thread(operation.wait_for_completion_blocking, 10))
            for _ in range(3)
        ]
        other_loop = asyncio.create_task(
            asyncio.to_thread(asyncio.run, operation.wait_for_completion(10))
        )
        await asyncio.sleep(0)
        answer = await asyncio.to_thread(peer.do, "active", kind="read", metadata=told, sizes=[800])
        await asyncio.gather(*waits, *threads, other_loop)
        return answer

    answer = asyncio.run(main())
    peer.do("wait", number=answer["id"])
    operation.wait_for_completion_blocking(0)  # once more, after the end
    assert operation.status is STATUS.COMPLETE


def test_wait_timeout_leaves_the_operation(connector, peer):
    operation = connector.create_readable_blocking(nc.Descriptor(np.arange(10)))
    with pytest.raises(TimeoutError) as caught:
        operation.wait_for_completion_blocking(0.01)
    assert isinstance(caught.value, nc.WaitTimeoutError)
    with pytest.raises(nc.WaitTimeoutError):
        asyncio.run(operation.wait_for_completion(0.01))
    assert operation.status is STATUS.INITIALIZED
    answer = peer.do("active", kind="read", metadata=operation.metadata().model_dump(), sizes=[80])
    peer.do("wait", number=answer["id"])
    operation.wait_for_completion_blocking(10)


def test_cancelled_waiting_task_does_not_cancel_the_operation(connector, peer):
    async def main():
        operation = await connector.create_readable(nc.Descriptor(np.arange(10)))
        task = asyncio.create_task(operation.wait_for_completion())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert operation.status is STATUS.INITIALIZED
        told = operation.metadata().model_dump()
        answer = await asyncio.to_thread(peer.do, "active", kind="read", metadata=told, sizes=[80])
        await operation.wait_for_completion(10)
        return answer

    peer.do("wait", number=asyncio.run(main())["id"])


def test_a_coroutine_awaited_later_keeps_its_operation(connector, peer):
    async def main():
        operation = await connector.create_readable(nc.Descriptor(np.arange(10)))
        told = operation.metadata().model_dump()
        wait = operation.wait_for_completion(10)
        del operation
        gc.collect()
        answer = await asyncio.to_thread(peer.do, "active", kind="read", metadata=told, sizes=[80])
        await wait
        return answer

    peer.do("wait", number=asyncio.run(main())["id"])


@pytest.mark.parametrize("leave", ["cancel", "with", "drop", "exit by hand"])
def test_a_passive_operation_given_up_before_the_transfer(connector, leave):
    array = np.zeros(100, np.uint8)
    alive = weakref.ref(array)
    operation = connector.create_writable_blocking(nc.Descriptor(array))
    native = operation._native
    del array
    if leave == "cancel":
        operation.cancel()
        operation.cancel()
    elif leave == "with":
        with operation:
            pass
    elif leave == "exit by hand":
        operation.__exit__(None, None, None)
        operation.__exit__(None, None, None)
    if leave == "drop":
        del operation, native
    else:
        assert operation.status is STATUS.CANCELLED
        with pytest.raises(nc.OperationCancelledError):
            operation.wait_for_completion_blocking(5)
        with pytest.raises(nc.StateError):
            operation.metadata()
        del operation, native
    # Its metadata was never handed out, so there is no quarantine.
    until(lambda: alive() is None)
    assert connector.stats()["registrations"] == {"count": 0, "bytes": 0}


def test_quarantine_keeps_what_a_peer_may_still_write_to(make_connector):
    connector = make_connector(quarantine=0.5)
    array = np.zeros(100, np.uint8)
    alive = weakref.ref(array)
    operation = connector.create_writable_blocking(nc.Descriptor(array))
    operation.metadata()
    begin = time.monotonic()
    operation.cancel()
    assert connector.stats()["registrations"]["count"] == 0  # lost at once
    del array, operation
    gc.collect()
    assert alive() is not None
    until(lambda: alive() is None)
    assert time.monotonic() - begin >= 0.5
    assert connector.stats()["operations"]["held"] == 0


def test_quarantine_outlives_the_connector(make_connector):
    connector = make_connector(quarantine=0.5)
    array = np.zeros(100, np.uint8)
    alive = weakref.ref(array)
    operation = connector.create_writable_blocking(nc.Descriptor(array))
    operation.metadata()
    begin = time.monotonic()
    connector.close_blocking()
    assert operation.status is STATUS.CANCELLED
    del array, operation
    gc.collect()
    assert alive() is not None
    until(lambda: alive() is None)
    assert time.monotonic() - begin >= 0.5


def test_the_peers_notification_ends_a_quarantine(make_connector, peer):
    connector = make_connector(quarantine=60)
    array = np.zeros(100, np.uint8)
    alive = weakref.ref(array)
    operation = connector.create_writable_blocking(nc.Descriptor(array))
    told = operation.metadata().model_dump()
    operation.cancel()
    del array
    # Deregistering revokes nothing on shared memory: the late write arrives, in memory that lives.
    answer = peer.do("active", kind="write", metadata=told, sizes=[100], seed=3)
    peer.do("wait", number=answer["id"])
    assert operation.status is STATUS.CANCELLED
    del operation
    until(lambda: alive() is None)


def test_deadline_of_a_passive_operation(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(np.arange(10)), timeout=0.05)
    operation.metadata()
    with pytest.raises(nc.TransferTimeoutError) as caught:
        operation.wait_for_completion_blocking(10)
    assert isinstance(caught.value, TimeoutError)
    assert operation.status is STATUS.ERRORED
    operation.cancel()
    assert operation.status is STATUS.ERRORED


def test_default_deadline(make_connector):
    connector = make_connector(timeout=0.05)
    operation = connector.create_readable_blocking(nc.Descriptor(np.arange(10)))
    with pytest.raises(nc.TransferTimeoutError):
        asyncio.run(operation.wait_for_completion(10))


def test_a_stopped_peer_times_out(connector, start_peer):
    peer = start_peer(environment={"UCX_TLS": "tcp"})
    made = peer.do("passive", kind="readable", sizes=[1 << 20])
    warm = peer.do("passive", kind="readable", sizes=[8])
    read(connector, warm["metadata"], np.zeros(8, np.uint8)).wait_for_completion_blocking(10)
    peer.stop()
    array = np.zeros(1 << 20, np.uint8)
    alive = weakref.ref(array)
    operation = read(connector, made["metadata"], array, timeout=0.3)
    del array
    with pytest.raises(nc.TransferTimeoutError) as caught:
        operation.wait_for_completion_blocking(10)
    assert caught.value.peer in str(caught.value)
    del operation, caught
    gc.collect()
    # In flight still, so the memory is kept; the peer goes on, the transfer ends, the memory goes.
    assert alive() is not None
    peer.resume()
    until(lambda: alive() is None)
    with pytest.raises(Exception, match="TransferError"):
        peer.do("wait", number=made["id"])


def test_cancel_while_in_flight_tells_the_passive_side(connector, start_peer):
    peer = start_peer(environment={"UCX_TLS": "tcp"})
    made = peer.do("passive", kind="readable", sizes=[1 << 20])
    warm = peer.do("passive", kind="readable", sizes=[8])
    read(connector, warm["metadata"], np.zeros(8, np.uint8)).wait_for_completion_blocking(10)
    peer.stop()
    operation = read(connector, made["metadata"], np.zeros(1 << 20, np.uint8))
    operation.cancel()
    assert operation.status is STATUS.CANCELLED
    with pytest.raises(nc.OperationCancelledError):
        operation.wait_for_completion_blocking(10)
    peer.resume()
    with pytest.raises(Exception, match="OperationCancelledError"):
        peer.do("wait", number=made["id"])


def test_cancel_after_completion_does_nothing(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[100])
    with read(connector, made["metadata"], np.zeros(100, np.uint8)) as operation:
        operation.wait_for_completion_blocking(10)
        operation.cancel()
    operation.__exit__(None, None, None)
    assert operation.status is STATUS.COMPLETE
    assert len(operation.results()) == 1


@pytest.mark.parametrize("transport", ["shared memory", "tcp"])
def test_a_killed_peer_is_an_error_at_once(connector, start_peer, transport):
    peer = start_peer(environment={} if transport == "shared memory" else {"UCX_TLS": "tcp"})
    made = [peer.do("passive", kind="readable", sizes=[100]) for _ in range(2)]
    read(connector, made[0]["metadata"], np.zeros(100, np.uint8)).wait_for_completion_blocking(10)
    peer.kill()
    with pytest.raises(nc.TransferError) as caught:
        read(connector, made[1]["metadata"], np.zeros(100, np.uint8)).wait_for_completion_blocking(
            10
        )
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.peer
    assert caught.value.status


@pytest.mark.parametrize("transport", ["shared memory", "tcp"])
@pytest.mark.parametrize("size", [1 << 12, 8 << 20])
def test_a_peer_killed_in_flight(connector, start_peer, transport, size):
    peer = start_peer(environment={} if transport == "shared memory" else {"UCX_TLS": "tcp"})
    made = peer.do("passive", kind="writable", sizes=[size])
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    first = connector.begin_write_blocking(nc.Descriptor(np.ones(size, np.uint8)), told)
    first.wait_for_completion_blocking(10)
    peer.stop()
    peer.kill()
    array = np.ones(size, np.uint8)
    alive = weakref.ref(array)
    # The regions are known, so nothing notices before the transfer itself.
    operation = connector.begin_write_blocking(nc.Descriptor(array), told, timeout=10)
    with pytest.raises(nc.PeerLostError) as caught:
        operation.wait_for_completion_blocking(15)
    assert caught.value.peer
    assert caught.value.status
    del operation, array, caught
    until(lambda: alive() is None)
    # And again, with a connection that has to be made anew.
    with pytest.raises(nc.PeerLostError):
        connector.begin_write_blocking(
            nc.Descriptor(np.ones(size, np.uint8)), told, timeout=10
        ).wait_for_completion_blocking(15)


def test_a_second_operation_object_cannot_be_entered_again(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(b"abc"))
    with operation:
        pass
    with pytest.raises(nc.StateError), operation:
        pass


def test_results_before_completion(connector, start_peer):
    peer = start_peer(environment={"UCX_TLS": "tcp"})
    made = peer.do("passive", kind="readable", sizes=[1 << 20])
    warm = peer.do("passive", kind="readable", sizes=[8])
    read(connector, warm["metadata"], np.zeros(8, np.uint8)).wait_for_completion_blocking(10)
    peer.stop()
    operation = read(connector, made["metadata"], np.zeros(1 << 20, np.uint8))
    with pytest.raises(RuntimeError):
        operation.results()
    peer.resume()
    operation.wait_for_completion_blocking(10)
    assert len(operation.results()) == 1


def test_closing_with_work_pending(make_connector, peer):
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


def test_closing_while_a_transfer_is_in_flight(make_connector, start_peer):
    connector = make_connector(drain=10)
    peer = start_peer(environment={"UCX_TLS": "tcp"})
    made = peer.do("passive", kind="readable", sizes=[1 << 20])
    warm = peer.do("passive", kind="readable", sizes=[8])
    read(connector, warm["metadata"], np.zeros(8, np.uint8)).wait_for_completion_blocking(10)
    peer.stop()
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


def test_a_dropped_connector_closes_by_itself(make_connector):
    connector = nc.Connector(quarantine=0)
    operation = connector.create_readable_blocking(nc.Descriptor(np.arange(10)))
    engine = connector._connection._engine
    del connector
    gc.collect()
    assert operation.status is STATUS.INITIALIZED  # it keeps its connection
    del operation
    gc.collect()
    until(lambda: engine.closed)


def test_registrations_of_callers_stay(connector, peer):
    array = np.zeros(1000, np.uint8)
    descriptor = nc.Descriptor(array)
    assert not descriptor.is_registered
    descriptor.register_memory(connector)
    descriptor.register_memory(connector)
    assert descriptor.is_registered
    # A pool shrinks the descriptor to one item, and restores it later.
    descriptor._data_size = 100
    made = peer.do("passive", kind="readable", sizes=[100], seed=9)
    with connector.begin_read_blocking(
        nc.RdmaMetadata.model_validate(made["metadata"]), descriptor
    ) as operation:
        operation.wait_for_completion_blocking(10)
    descriptor._data_size = 1000
    assert descriptor.is_registered
    assert connector.stats()["registrations"] == {"count": 1, "bytes": 1000}
    # A slice of what is registered costs nothing.
    part = connector.create_readable_blocking(nc.Descriptor(array[10:20]))
    assert connector.stats()["registrations"]["count"] == 1
    part.cancel()
    descriptor.deregister_with_connector(connector._connection)
    descriptor.deregister_with_connector(connector._connection)
    assert not descriptor.is_registered
    assert connector.stats()["registrations"]["count"] == 0


def test_a_dropped_descriptor_is_deregistered(connector):
    descriptor = nc.Descriptor(np.zeros(1000, np.uint8))
    descriptor.register_memory(connector)
    del descriptor
    until(lambda: connector.stats()["registrations"]["count"] == 0)


def test_a_descriptor_registers_with_one_connection(make_connector):
    one, two = make_connector(), make_connector()
    descriptor = nc.Descriptor(np.zeros(10, np.uint8))
    descriptor.register_memory(one)
    with pytest.raises(nc.RegistrationError):
        descriptor.register_memory(two)
    with pytest.raises(nc.RegistrationError):
        descriptor.deregister_with_connector(two._open())
    # Operations of another connection use it all the same.
    two.create_readable_blocking(descriptor).cancel()


def test_metadata_describes_its_own_operation_only(connector):
    one = connector.create_readable_blocking(nc.Descriptor(np.zeros(100, np.uint8)))
    size = len(one.metadata().nixl_metadata)
    arrays = [np.zeros(100, np.uint8) for _ in range(50)]
    others = [connector.create_readable_blocking(nc.Descriptor(array)) for array in arrays]
    again = connector.create_readable_blocking(nc.Descriptor(np.zeros(100, np.uint8)))
    assert abs(len(again.metadata().nixl_metadata) - size) < 32
    assert one.metadata() is one.metadata()
    assert one.metadata(hex_encode=True).nixl_metadata.startswith("78")
    with contextlib.ExitStack() as stack:
        for operation in (one, again, *others):
            stack.enter_context(operation)


def test_two_connectors_in_one_process_and_one_with_itself(make_connector, content):
    one, two = make_connector(), make_connector()
    data = content(1, 5000)
    for reader in (two, one):
        into = np.zeros(5000, np.uint8)
        owner = one.create_readable_blocking(nc.Descriptor(data))
        with reader.begin_read_blocking(owner.metadata(), nc.Descriptor(into)) as operation:
            operation.wait_for_completion_blocking(10)
        owner.wait_for_completion_blocking(10)
        assert (into == data).all()

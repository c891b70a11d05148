"""Cancelling, timing out, dropping, closing, and what each side sees of it."""

import asyncio
import contextlib
import gc
import time
import weakref

import numpy as np
import pytest
from calls import failing
from pairs import read
from processes import until

import nixl_connect as nc
from nixl_connect._native import envelope

STATUS = nc.OperationStatus


def again(metadata):
    """Return metadata of the same memory, under a key that is nobody's: that may be used twice."""
    return nc.RdmaMetadata.model_validate(metadata.model_dump() | {"notification_key": "again"})


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
    until(lambda: alive() is None, collect=True)
    assert connector.stats()["registrations"] == {"count": 0, "bytes": 0}


def test_quarantine_keeps_what_a_peer_may_still_write_to(make_connector):
    connector = make_connector(quarantine=0.5)
    array = np.zeros(100, np.uint8)
    freed = []
    alive = weakref.ref(array, lambda _: freed.append(time.monotonic()))
    operation = connector.create_writable_blocking(nc.Descriptor(array))
    operation.metadata()
    begin = time.monotonic()
    operation.cancel()
    assert connector.stats()["registrations"]["count"] == 0  # lost at once
    del array, operation
    gc.collect()
    until(lambda: freed, collect=True)
    assert alive() is None
    assert freed[0] - begin >= 0.5
    assert connector.stats()["operations"]["held"] == 0


def test_quarantine_outlives_the_connector(make_connector):
    connector = make_connector(quarantine=0.5)
    array = np.zeros(100, np.uint8)
    freed = []
    alive = weakref.ref(array, lambda _: freed.append(time.monotonic()))
    operation = connector.create_writable_blocking(nc.Descriptor(array))
    operation.metadata()
    begin = time.monotonic()
    connector.close_blocking()
    assert operation.status is STATUS.CANCELLED
    del array, operation
    gc.collect()
    until(lambda: freed, collect=True)
    assert alive() is None
    assert freed[0] - begin >= 0.5


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
    until(lambda: alive() is None, collect=True)


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


def test_a_stopped_peer_times_out(connector, hung):
    peer, made = hung(connector)
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
    until(lambda: alive() is None, collect=True)
    with pytest.raises(Exception, match="TransferError"):
        peer.do("wait", number=made["id"])


def test_cancel_while_in_flight_tells_the_passive_side(connector, hung):
    peer, made = hung(connector)
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
    # Nothing is to be loaded, and the connection is not quiet: the transfer itself finds out.
    for known in connector._open()._engine.peers.known():
        known.last_used += 3600
    operation = connector.begin_write_blocking(nc.Descriptor(array), again(told), timeout=10)
    with pytest.raises(nc.PeerLostError) as caught:
        operation.wait_for_completion_blocking(15)
    assert caught.value.peer
    del operation, array, caught
    until(lambda: alive() is None, collect=True)
    # And again, with a connection that has to be made anew.
    with pytest.raises(nc.PeerLostError):
        connector.begin_write_blocking(
            nc.Descriptor(np.ones(size, np.uint8)), again(told), timeout=10
        ).wait_for_completion_blocking(15)


def test_metadata_serves_one_transfer(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    read(connector, made["metadata"], np.zeros(8, np.uint8)).wait_for_completion_blocking(10)
    with pytest.raises(nc.StateError, match="has been used"):
        read(connector, made["metadata"], np.zeros(8, np.uint8))
    # A refused attempt does not count.
    made = peer.do("passive", kind="readable", sizes=[8])
    with pytest.raises(nc.ArgumentError):
        read(connector, made["metadata"], np.zeros(9, np.uint8))
    read(connector, made["metadata"], np.zeros(8, np.uint8)).wait_for_completion_blocking(10)


def test_short_deadlines_are_kept(connector, start_peer):
    """One deadline that fires while another transfer is being posted must not hide that one's."""
    peer = start_peer(environment={"UCX_TLS": "tcp"})
    made = peer.do("passive", kind="readable", sizes=[1 << 20])
    told = again(nc.RdmaMetadata.model_validate(made["metadata"]))
    read(connector, told.model_dump(), np.zeros(1 << 20, np.uint8)).wait_for_completion_blocking(10)
    peer.stop()
    array = np.zeros(1 << 20, np.uint8)
    operations = [
        connector.begin_read_blocking(told, nc.Descriptor(array), timeout=0.005 if i % 2 else 0.002)
        for i in range(600)
    ]
    for operation in operations:
        with pytest.raises(nc.TransferTimeoutError):
            operation.wait_for_completion_blocking(10)
    peer.resume()
    until(lambda: connector.stats()["operations"]["held"] == 0)


def test_sizes_are_those_of_the_beginning(make_connector, peer):
    """A pool restores a descriptor's size while an operation of it is under way."""
    connector = make_connector(keys=b"k" * 16)
    descriptor = nc.Descriptor(np.zeros(1000, np.uint8))
    descriptor.register_memory(connector)
    descriptor._data_size = 10
    operation = connector.create_readable_blocking(descriptor)
    descriptor._data_size = 1000
    told = operation.metadata()
    assert [item.size for item in told.descriptors] == [10]
    target = nc.Descriptor(bytearray(10))
    make_connector(keys=b"k" * 16).begin_read_blocking(told, target).wait_for_completion_blocking(
        10
    )
    operation.wait_for_completion_blocking(10)


def test_a_failed_deregistration_is_logged_and_no_error(connector, caplog):
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(10)))
    with failing("deregister_mem"):
        operation.cancel()
    assert "keeps 10 bytes" in caplog.text


def test_memory_that_nixl_keeps_is_not_registered_twice(connector):
    """NIXL would crash when the second registration of a region is taken back."""
    descriptor = nc.Descriptor(bytearray(10))
    operation = connector.create_readable_blocking(descriptor)
    registry = connector._connection._engine.registry
    with failing("deregister_mem", times=1):
        operation.cancel()
    assert len(registry) == registry.left == 0
    assert len(envelope.parse(connector._connection.metadata).sections) == 1
    for _ in range(2):
        with connector.create_readable_blocking(descriptor) as offered:
            target = bytearray(10)
            read = connector.begin_read_blocking(offered.metadata(), nc.Descriptor(target))
            read.wait_for_completion_blocking(10)
            del read
        until(lambda: not len(registry), collect=True)


def test_a_second_operation_object_cannot_be_entered_again(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(b"abc"))
    with operation:
        pass
    with pytest.raises(nc.StateError), operation:
        pass


def test_results_before_completion(connector, hung):
    peer, made = hung(connector)
    operation = read(connector, made["metadata"], np.zeros(1 << 20, np.uint8))
    with pytest.raises(RuntimeError):
        operation.results()
    peer.resume()
    operation.wait_for_completion_blocking(10)
    assert len(operation.results()) == 1


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

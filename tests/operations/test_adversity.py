"""Exceptions, garbage collection and closed loops at the worst moments."""

import asyncio
import gc
import logging
import signal
import threading

import numpy as np
import pytest
from calls import led
from dropped import Memory
from holding import held
from pairs import read
from processes import DEADLINE, until

import nixl_connect as nc
from nixl_connect._native.agent import LongCall
from nixl_connect.permit import HASTY, NotQuickError


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


def test_an_exception_in_the_middle_of_collecting_loses_nothing(make_connector, caplog):
    """Of a filter of logs, say, at the first of many that have ended."""
    connector = make_connector()
    engine = connector._open()._engine
    raised = []

    def interrupted(record):
        if threading.current_thread() is threading.main_thread() and not raised:
            raised.append(record)
            raise StopError
        return True

    operations = [connector.create_readable_blocking(nc.Descriptor(bytearray(8))) for _ in range(5)]
    logger = logging.getLogger("nixl_connect.peers.registrations")
    logger.addFilter(interrupted)
    try:
        with caplog.at_level(logging.DEBUG, "nixl_connect"), pytest.raises(StopError):
            operations[0].cancel()
    finally:
        logger.removeFilter(interrupted)
    del operations
    until(lambda: not any(held(connector).values()), collect=True)
    assert engine.registry.left == 0


def test_operations_end_no_faster_than_they_are_let_go_of(make_connector):
    """While NIXL is busy for long, nobody deregisters who must not wait; a beginning does."""
    connector = make_connector()
    engine = connector._open()._engine
    descriptors = [nc.Descriptor(bytearray(8)) for _ in range(1000)]
    most = 0
    with LongCall(engine._agent):
        for descriptor in descriptors:
            connector.create_readable_blocking(descriptor).cancel()
            most = max(most, engine.registry.left)
    assert most <= 2
    until(lambda: not any(held(connector).values()))


def test_many_that_end_at_once_are_not_let_go_of_on_a_loop(make_connector):
    """Deregistering that many takes longer than a loop may stand still."""
    connector = make_connector()
    engine = connector._open()._engine
    threads = []

    def noted(original, *arguments):
        threads.append(threading.current_thread())
        return original(*arguments)

    array = np.zeros(2000, np.uint8)
    many = [nc.Descriptor(array[i : i + 1]) for i in range(0, 2000, 2)]

    async def main():
        operation = await connector.create_readable(many)
        assert len(engine.registry) == 1000
        with led("deregister_mem", noted):
            operation.cancel()
            later = await connector.create_readable(nc.Descriptor(bytearray(8)))
            later.cancel()
            await asyncio.to_thread(until, lambda: not any(held(connector).values()))
        assert threads
        assert threading.main_thread() not in threads[:1]

    asyncio.run(main())


def test_memory_is_dropped_without_a_lock(make_connector):
    """Its finalizer may wait for another thread that uses the connector."""
    connector = make_connector()
    used = []

    def use():
        connector.create_readable_blocking(nc.Descriptor(bytearray(8))).cancel()
        connector.stats()
        used.append(True)

    def finalize():
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(DEADLINE)

    operation = connector.create_readable_blocking(nc.Descriptor(Memory(finalize)))
    operation.cancel()
    del operation
    until(lambda: used, collect=True)
    until(lambda: not any(held(connector).values()))


def test_metadata_of_an_operation_that_ends_meanwhile(make_connector):
    """NIXL describes nothing without a word, where nothing is registered any more."""
    connector = make_connector()
    engine = connector._open()._engine
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))

    def late(original, *arguments):
        operation.cancel()
        until(lambda: not engine.registry.left)
        return original(*arguments)

    with led("get_local_partial_md", late), pytest.raises(nc.StateError, match="has ended"):
        operation.metadata()


def test_lost_peers_are_evicted(connector, start_peer):
    for _ in range(4):
        peer = start_peer()
        made = peer.do("passive", kind="writable", sizes=[8])
        late = nc.RdmaMetadata.model_validate(
            made["metadata"] | {"notification_key": "a key of nobody's"}
        )

        def write(late=late):
            operation = connector.begin_write_blocking(nc.Descriptor(bytes(8)), late)
            operation.wait_for_completion_blocking(10)

        write()
        peer.stop()
        peer.kill()
        with pytest.raises(nc.PeerLostError):
            write()
    assert connector.stats()["peers"]["count"] == 0
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
    until(lambda: not connector.stats().get("operations", {}).get("held"))


def stuck(connector, name):
    """Make the connector believe that a thread is connecting a peer; return what ends that."""
    peers = connector._open()._engine.peers
    peer = peers.by_name[name]
    with peers._changed:
        peer.busy = True

    def end():
        with peers._changed:
            peer.busy = False
            peers._changed.notify_all()

    return end


def met(connector, peer, size=64):
    """Read once from a peer; return its name, and metadata of memory that is new to us."""
    made = peer.do("passive", kind="readable", sizes=[8])
    with read(connector, made["metadata"], np.zeros(8, np.uint8)) as operation:
        operation.wait_for_completion_blocking(10)
        name = operation.remote.name
    made = peer.do("passive", kind="readable", sizes=[size], seed=1)
    return name, nc.RdmaMetadata.model_validate(made["metadata"])


def test_a_cancelled_begin_never_starts(connector, peer):
    """The peer is held up, the task gives up, the peer goes on: the buffer stays as it was."""
    name, told = met(connector, peer)
    end = stuck(connector, name)
    array = np.zeros(64, np.uint8)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(connector.begin_read(told, nc.Descriptor(array)), 0.2)
        end()
        # A begin that is wanted goes through, on the same peer.
        made = await asyncio.to_thread(peer.do, "passive", kind="readable", sizes=[64], seed=2)
        other = np.zeros(64, np.uint8)
        wanted = await connector.begin_read(
            nc.RdmaMetadata.model_validate(made["metadata"]), nc.Descriptor(other)
        )
        await wanted.wait_for_completion(10)
        assert other.any()

    asyncio.run(main())
    assert not array.any()
    assert connector.stats()["operations"]["started"] == 2


def test_a_stuck_peer_does_not_hold_up_others(connector, start_peer):
    name, told = met(connector, start_peer())
    _, other = met(connector, start_peer())
    end = stuck(connector, name)

    async def main():
        waiting = [
            asyncio.create_task(
                connector.begin_read(
                    nc.RdmaMetadata.model_validate(
                        told.model_dump() | {"notification_key": f"key {i}"}
                    ),
                    nc.Descriptor(np.zeros(64, np.uint8)),
                )
            )
            for i in range(50)
        ]
        await asyncio.sleep(0.05)
        read = await asyncio.wait_for(
            connector.begin_read(other, nc.Descriptor(np.zeros(64, np.uint8))), 10
        )
        await read.wait_for_completion(10)
        end()
        for task in waiting:
            await (await asyncio.wait_for(task, 20)).wait_for_completion(10)

    asyncio.run(main())


def test_an_older_region_that_hides_a_newer_one(make_connector):
    """NIXL overlooks a buffer behind its slice, at the peer too: it is loaded anew, on a thread."""
    owner, mover = make_connector(), make_connector()
    pool = bytearray(range(256)) * 16

    async def moved(start, stop):
        readable = await owner.create_readable(nc.Descriptor(memoryview(pool)[start:stop]))
        target = bytearray(stop - start)
        operation = await mover.begin_read(readable.metadata(), nc.Descriptor(target))
        await operation.wait_for_completion(10)
        assert target == pool[start:stop]

    async def main():
        await moved(16, 32)
        whole = nc.Descriptor(pool)
        whole.register_memory(owner)
        await moved(2048, 2056)
        await moved(0, 4096)
        await moved(100, 200)

    asyncio.run(main())


def test_one_key_starts_one_transfer(make_connector, peer):
    connector = make_connector()
    _, told = met(connector, peer)
    results = []

    async def begin():
        try:
            operation = await connector.begin_read(told, nc.Descriptor(np.zeros(64, np.uint8)))
            await operation.wait_for_completion(10)
            results.append("read")
        except nc.StateError:
            results.append("refused")

    async def main():
        await asyncio.gather(*(begin() for _ in range(5)))

    asyncio.run(main())
    assert sorted(results) == ["read"] + ["refused"] * 4


def test_an_agent_of_our_own_name_is_not_taken_for_us(make_connector):
    one, other = make_connector("same"), make_connector("same")
    readable = one.create_readable_blocking(nc.Descriptor(bytearray(8)))
    with pytest.raises(nc.MetadataError, match="name of this one"):
        other.begin_read_blocking(readable.metadata(), nc.Descriptor(bytearray(8)))


def test_many_rows_do_not_begin_on_the_loop(connector):
    array = np.zeros(1000, np.uint8)
    few = [nc.Descriptor(array[i : i + 1]) for i in range(10)]
    many = [nc.Descriptor(array[i : i + 1]) for i in range(1000)]
    connection = connector._open()
    begun = nc.ReadableOperation(connection, few, _patient=False)
    assert begun.status is nc.OperationStatus.INITIALIZED
    waiting = nc.ReadableOperation(connection, many, _patient=False)
    assert waiting.status is nc.OperationStatus.UNINITIALIZED
    with pytest.raises(NotQuickError):
        waiting._begin(HASTY)

    async def main():
        async with await connector.create_readable(many) as operation:
            assert operation.status is nc.OperationStatus.INITIALIZED

    asyncio.run(main())

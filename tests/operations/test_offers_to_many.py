"""One offer, many transfers: counted, ended by the last, by its owner, or at its deadline."""

import asyncio
import gc
import math

import numpy as np
import pytest
from processes import DEADLINE, until

import nixl_connect as nc
from nixl_connect import OperationStatus


def dumped(operation):
    return operation.metadata().model_dump()


def read_by(peer, operation, size=100, wait=True):
    """Have a peer read what is offered; return the digest of what it has read."""
    made = peer.do("active", kind="read", metadata=dumped(operation), sizes=[size])
    if wait:
        peer.do("wait", number=made["id"])
    return peer.do("digests", number=made["id"])["digests"]


def read_here(connector, operation, source):
    """Read what is offered within this process, and compare it."""
    target = np.zeros_like(source)
    with connector.begin_read_blocking(operation.metadata(), nc.Descriptor(target)) as read:
        read.wait_for_completion_blocking(DEADLINE)
    assert (target == source).all()


def await_counts(operation, done, failed=0):
    until(lambda: (operation.transfers_done, operation.transfers_failed) == (done, failed))


def test_as_many_readers_as_were_said(start_peer, connector, content, digest):
    source = content(1, 100)
    peers = [start_peer() for _ in range(3)]
    operation = connector.create_readable_blocking(nc.Descriptor(source), transfers=3)
    for i, peer in enumerate(peers):
        assert operation.status == OperationStatus.INITIALIZED
        assert read_by(peer, operation) == [digest(source)]
        await_counts(operation, i + 1)
    operation.wait_for_completion_blocking(DEADLINE)
    assert (operation.status, operation.transfers_done) == (OperationStatus.COMPLETE, 3)
    until(lambda: connector.stats()["operations"]["held"] == 0)  # nothing in quarantine
    assert connector.stats()["operations"]["quarantined"] == 0


def test_one_peer_many_times(peer, connector, content, digest):
    source = content(2, 100)
    operation = connector.create_readable_blocking(nc.Descriptor(source), transfers=5)
    for _ in range(5):
        assert read_by(peer, operation) == [digest(source)]
    operation.wait_for_completion_blocking(DEADLINE)


def test_within_one_connector(connector, content):
    source = content(3, 64)
    operation = connector.create_readable_blocking(nc.Descriptor(source), transfers=2)
    read_here(connector, operation, source)
    read_here(connector, operation, source)
    operation.wait_for_completion_blocking(DEADLINE)


def test_an_ordinary_offer_still_serves_one(make_connector, content):
    """Its key is of the other form, which is remembered."""
    owner, mover, source = make_connector(), make_connector(), content(4, 64)
    operation = owner.create_readable_blocking(nc.Descriptor(source))
    read_here(mover, operation, source)
    operation.wait_for_completion_blocking(DEADLINE)
    assert (operation.transfers_done, operation.transfers_failed) == (1, 0)
    with pytest.raises(nc.StateError, match="used"):
        mover.begin_read_blocking(operation.metadata(), nc.Descriptor(np.zeros(64, np.uint8)))


def test_until_its_owner_ends_it(make_connector, content):
    owner, mover, source = make_connector(), make_connector(), content(5, 64)
    operation = owner.create_readable_blocking(nc.Descriptor(source), transfers=None)
    assert owner.operations()[0].left == math.inf  # no deadline
    for i in range(20):
        read_here(mover, operation, source)
        await_counts(operation, i + 1)
    (report,) = owner.operations()
    assert (report.transfers, report.transfers_done) == (None, 20)
    assert "20 of any number" in str(report)
    operation.finish()
    operation.wait_for_completion_blocking(0)
    assert operation.status == OperationStatus.COMPLETE
    # Readers that are late may still read: the memory is kept as after a cancel.
    assert owner.stats()["operations"]["quarantined"] == 1
    operation.finish()  # does nothing
    until(lambda: owner.stats()["operations"]["held"] == 0)


def test_a_deadline_where_one_is_given(connector):
    operation = connector.create_readable_blocking(
        nc.Descriptor(bytearray(8)), transfers=None, timeout=0.05
    )
    with pytest.raises(nc.TransferTimeoutError):
        operation.wait_for_completion_blocking(DEADLINE)
    assert operation.status == OperationStatus.ERRORED


def test_finish_before_anybody_knows_it(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)), transfers=2)
    operation.finish()
    operation.wait_for_completion_blocking(0)
    assert connector.stats()["operations"]["quarantined"] == 0
    operation.cancel()  # too late
    assert operation.status == OperationStatus.COMPLETE


def test_only_offers_to_many_are_finished(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
    with pytest.raises(nc.StateError, match="one transfer"):
        operation.finish()
    operation.cancel()


def test_what_several_have_written_is_kept_for_a_while(connector, make_connector, content):
    """Of those that have not told how they ended, one may still write."""
    target, source = np.zeros(64, np.uint8), content(12, 64)
    operation = connector.create_writable_blocking(nc.Descriptor(target), transfers=2)
    for _ in range(2):
        mover = make_connector()
        with mover.begin_write_blocking(nc.Descriptor(source), operation.metadata()) as write:
            write.wait_for_completion_blocking(DEADLINE)
    operation.wait_for_completion_blocking(DEADLINE)
    assert (target == source).all()
    assert connector.stats()["operations"]["quarantined"] == 1
    until(lambda: connector.stats()["operations"]["held"] == 0)


def test_finish_wakes_who_waits(connector):
    async def main():
        operation = await connector.create_readable(nc.Descriptor(bytearray(8)), transfers=None)
        waiters = [asyncio.ensure_future(operation.wait_for_completion()) for _ in range(3)]
        await asyncio.sleep(0.01)
        operation.finish()
        await asyncio.wait_for(asyncio.gather(*waiters), DEADLINE)

    asyncio.run(main())


def test_what_is_cancelled_neither_counts_nor_ends_it(peer, connector, content, digest):
    source = content(6, 64 << 20)
    operation = connector.create_readable_blocking(nc.Descriptor(source), transfers=2)
    cancelled = 0
    for _ in range(20):  # some are over before they are cancelled
        made = peer.do("active", kind="read", metadata=dumped(operation), sizes=[64 << 20])
        peer.do("cancel", number=made["id"])
        until(lambda seen=cancelled: operation.transfers_done + operation.transfers_failed > seen)
        if operation.transfers_done:
            break
        cancelled += 1
        peer.do("drop", number=made["id"])
    assert operation.transfers_failed == cancelled
    while operation.status == OperationStatus.INITIALIZED:
        assert read_by(peer, operation, 64 << 20) == [digest(source)]
        until(lambda: operation.transfers_done > 0)
        if operation.transfers_done == 2:
            operation.wait_for_completion_blocking(DEADLINE)
    assert (operation.transfers_done, operation.transfers_failed) == (2, cancelled)


def test_cancelled_by_its_owner(connector, make_connector, content):
    source = content(7, 64)
    operation = connector.create_readable_blocking(nc.Descriptor(source), transfers=3)
    read_here(make_connector(), operation, source)
    await_counts(operation, 1)
    operation.cancel()
    with pytest.raises(nc.OperationCancelledError):
        operation.wait_for_completion_blocking(0)
    assert operation.transfers_done == 1
    assert connector.stats()["operations"]["quarantined"] == 1
    until(lambda: connector.stats()["operations"]["held"] == 0)


def test_dropped(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)), transfers=None)
    operation.metadata()
    del operation
    gc.collect()
    until(lambda: connector.stats()["operations"]["held"] == 0)


def test_closing_a_prepared_transfer_counts_once(make_connector, content):
    owner, mover, source = make_connector(), make_connector(), content(8, 64)
    operation = owner.create_readable_blocking(nc.Descriptor(source), transfers=2)
    for _ in range(2):
        target = np.zeros(64, np.uint8)
        with mover.prepare_read_blocking(operation.metadata(), nc.Descriptor(target)) as prepared:
            for _ in range(5):
                prepared.transfer_blocking(DEADLINE)
        assert (target == source).all()
    operation.wait_for_completion_blocking(DEADLINE)


def test_many_at_once(make_connector, content):
    """From several connectors and tasks at the same time."""
    owner, movers, source = make_connector(), [make_connector() for _ in range(3)], content(9, 4096)

    async def read(mover, metadata):
        target = np.zeros(4096, np.uint8)
        operation = await mover.begin_read(metadata, nc.Descriptor(target))
        await operation.wait_for_completion(DEADLINE)
        assert (target == source).all()

    async def main():
        operation = await owner.create_readable(nc.Descriptor(source), transfers=60)
        metadata = operation.metadata()
        await asyncio.gather(*(read(movers[i % 3], metadata) for i in range(60)))
        await operation.wait_for_completion(DEADLINE)
        assert operation.transfers_done == 60

    asyncio.run(main())


KEYS = [b"0123456789abcdef"]


@pytest.mark.parametrize("transfers", [2, None])
def test_seals_live_as_long(make_connector, content, transfers):
    owner = make_connector(keys=KEYS, seal_lifetime=0.0)
    mover, source = make_connector(keys=KEYS), content(10, 64)
    timeout = None if transfers is None else 100
    operation = owner.create_readable_blocking(
        nc.Descriptor(source), transfers=transfers, timeout=timeout
    )
    head, _, expiry = operation.metadata().notification_key.rpartition(".")[0].partition(".s1.")
    assert head.endswith(".m")
    assert (int(expiry) > 2e11) == (transfers is None)
    read_here(mover, operation, source)
    read_here(mover, operation, source)
    await_counts(operation, 2)
    operation.finish()


@pytest.mark.parametrize(
    ("transfers", "error"),
    [
        (0, nc.ArgumentError),
        (-1, nc.ArgumentError),
        (1 << 64, nc.ArgumentError),
        (True, nc.ArgumentTypeError),
        (False, nc.ArgumentTypeError),
        (1.0, nc.ArgumentTypeError),
        ("2", nc.ArgumentTypeError),
    ],
)
def test_how_many_is_checked(connector, transfers, error):
    for create in (connector.create_readable_blocking, connector.create_writable_blocking):
        with pytest.raises(error, match="transfers"):
            create(nc.Descriptor(bytearray(8)), transfers=transfers)


def test_an_integer_of_numpy(connector):
    operation = connector.create_readable_blocking(
        nc.Descriptor(bytearray(8)), transfers=np.int64(3)
    )
    assert connector.operations()[0].transfers == 3
    operation.cancel()


def test_statistics(make_connector, content):
    owner, mover, source = make_connector(), make_connector(), content(11, 64)
    operation = owner.create_readable_blocking(nc.Descriptor(source), transfers=3)
    for _ in range(3):
        read_here(mover, operation, source)
    operation.wait_for_completion_blocking(DEADLINE)
    figures = owner.stats()["ended"]["readable"]
    assert (figures["complete"], figures["bytes"]) == (1, 3 * 64)


def test_closing_the_connector_ends_it(make_connector):
    owner = make_connector()
    operation = owner.create_readable_blocking(nc.Descriptor(bytearray(8)), transfers=None)
    owner.close_blocking()
    with pytest.raises(nc.OperationCancelledError):
        operation.wait_for_completion_blocking(0)
    with pytest.raises(nc.NixlConnectError):
        owner.create_readable_blocking(nc.Descriptor(bytearray(8)), transfers=None)

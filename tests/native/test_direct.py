"""What peers of one host tell each other by the doorbell, and agents of one process by nothing."""

import asyncio
import contextlib
import os
import socket
import time

import numpy as np
import pytest
from doorbells import address
from processes import DEADLINE, run_python, until

import nixl_connect as nc
from nixl_connect import OperationStatus
from nixl_connect.peers.peer import Peer

TOLD = b"\2"


def counters(connector):
    return connector._open()._engine._reactor.counters


def offered(made):
    return nc.RdmaMetadata.model_validate(made["metadata"])


def read(connector, told, size=100):
    target = np.zeros(size, np.uint8)
    with connector.begin_read_blocking(told, nc.Descriptor(target)) as reading:
        reading.wait_for_completion_blocking(DEADLINE)
    return target


def have_read(peer, operation):
    """Have a peer read what is offered, and wait for both sides."""
    told = operation.metadata().model_dump()
    made = peer.do("active", kind="read", metadata=told, sizes=[100])
    peer.do("wait", number=made["id"])
    operation.wait_for_completion_blocking(DEADLINE)
    return peer.do("digests", number=made["id"])["digests"]


def test_a_peer_of_this_host_tells_by_the_doorbell(connector, peer, content, digest):
    for seed in range(5):
        source = content(seed, 100)
        operation = connector.create_readable_blocking(nc.Descriptor(source))
        assert have_read(peer, operation) == [digest(source)]
    seen = counters(connector)
    assert (seen["notifications"], seen["notifications_direct"]) == (5, 5)


def test_a_write_is_told_after_its_bytes_are_there(connector, peer, content):
    for seed in range(50):
        target = np.zeros(10_000, np.uint8)
        operation = connector.create_writable_blocking(nc.Descriptor(target))
        told = operation.metadata().model_dump()
        peer.do("active", kind="write", metadata=told, sizes=[10_000], seed=seed)
        operation.wait_for_completion_blocking(DEADLINE)
        assert (target == content(seed, 10_000)).all()
    assert counters(connector)["notifications_direct"] > 0


def test_a_full_doorbell(connector, peer, content, monkeypatch):
    """A stopped peer empties none, and there is room for ten: NIXL tells the rest."""
    # However long a pause takes, the peer is not asked whether it is still there.
    monkeypatch.setattr(Peer, "is_quiet", False)
    made = [peer.do("passive", kind="readable", sizes=[100], seed=seed) for seed in range(40)]
    one = peer.do("passive", kind="readable", sizes=[100])
    read(connector, offered(one))
    peer.do("wait", number=one["id"])
    time.sleep(0.5)  # the messenger, too, has connected
    before = peer.do("stats")["stats"]["notifications"]["received"]
    peer.stop()
    try:
        for seed, one in enumerate(made):
            assert (read(connector, offered(one)) == content(seed, 100)).all()
    finally:
        peer.resume()
    for one in made:
        peer.do("wait", number=one["id"])
    seen = peer.do("stats")["stats"]["notifications"]
    assert (seen["received"] - before, seen["unmatched"]) == (40, 0)


def test_a_key_that_is_too_long_for_it(connector, peer, content):
    """Who makes metadata may choose the key: as long as it likes, it is told as it is."""
    made = peer.do("passive", kind="readable", sizes=[100], seed=7)
    told = offered(made).model_copy(update={"notification_key": "k" * 600})
    assert (read(connector, told) == content(7, 100)).all()
    until(lambda: peer.do("stats")["stats"]["notifications"]["unmatched"] == 1)
    # The longest that is told there, to which nothing is added.
    told = offered(made).model_copy(update={"notification_key": "k" * 511})
    read(connector, told)
    until(lambda: peer.do("stats")["stats"]["notifications"]["unmatched"] == 2)
    read(connector, offered(made))
    peer.do("wait", number=made["id"])


def say(connector, *messages):
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as anybody:
        for message in messages:
            end = time.monotonic() + DEADLINE
            while time.monotonic() < end:
                with contextlib.suppress(BlockingIOError):
                    anybody.sendto(message, address(connector))
                    break
            else:
                raise AssertionError("the doorbell stays full")


def test_who_does_not_know_the_key(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(100)))
    key = operation.metadata().notification_key.encode()
    wrong = [
        b"", TOLD, TOLD + b"x" * 32, TOLD + key[:-1], TOLD + key + b"\0", TOLD + key + b"x" * 600,
        b"\0" + key, b"\1" + key, b"\3" + key, TOLD + key.upper() + b" ", TOLD * 5000,
        TOLD + b"nixl_connect:cancelled:", TOLD + b"nixl_connect:failed:" + key[1:],
    ]  # fmt: skip
    say(connector, *wrong)
    time.sleep(0.05)
    assert operation.status == OperationStatus.INITIALIZED
    assert counters(connector)["notifications_direct"] == 0
    # Who knows it has been told it.
    say(connector, TOLD + key)
    operation.wait_for_completion_blocking(DEADLINE)
    assert counters(connector)["notifications_direct"] == 1


def test_what_was_told_is_not_late(connector, peer, content, digest):
    """A deadline passes while the loop that listens stands still, after the peer has told."""

    async def main():
        source = content(1, 100)
        first = await connector.create_readable(nc.Descriptor(source))
        await asyncio.to_thread(have_read, peer, first)
        operation = await connector.create_readable(nc.Descriptor(source), timeout=0.4)
        told = operation.metadata().model_dump()
        waiting = asyncio.ensure_future(operation.wait_for_completion())
        await asyncio.sleep(0.01)
        made = peer.do("active", kind="read", metadata=told, sizes=[100])  # the loop stands still
        peer.do("wait", number=made["id"])
        time.sleep(0.6)  # noqa: ASYNC251
        await asyncio.wait_for(waiting, DEADLINE)
        assert operation.status == OperationStatus.COMPLETE

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["read", "write"])
def test_agents_of_one_process_need_no_doorbell(make_connector, content, kind):
    passive, active = make_connector(), make_connector()
    for seed in range(5):
        source, target = content(seed, 100), np.zeros(100, np.uint8)
        if kind == "read":
            offer = passive.create_readable_blocking(nc.Descriptor(source))
            moving = active.begin_read_blocking(offer.metadata(), nc.Descriptor(target))
        else:
            offer = passive.create_writable_blocking(nc.Descriptor(target))
            moving = active.begin_write_blocking(nc.Descriptor(source), offer.metadata())
        moving.wait_for_completion_blocking(DEADLINE)
        assert offer.status == OperationStatus.COMPLETE  # by then, without a look
        assert (target == source).all()
    assert counters(passive)["notifications_direct"] == 5


def test_an_agent_of_this_process_that_has_closed(make_connector):
    passive, active = make_connector(), make_connector()
    offers = [passive.create_readable_blocking(nc.Descriptor(bytearray(8))) for _ in range(2)]
    first, second = [offer.metadata() for offer in offers]
    read(active, first, 8)
    passive.close_blocking()
    with pytest.raises(nc.PeerLostError):
        read(active, second, 8)


IN_THREADS = """
import sys, threading
import nixl_connect as nc

def offer_and_read(passive, active):
    source, target = bytearray(b"x" * 64), bytearray(64)
    with passive.create_readable_blocking(nc.Descriptor(source)) as offer:
        with active.begin_read_blocking(offer.metadata(), nc.Descriptor(target)) as reading:
            reading.wait_for_completion_blocking(20)
        offer.wait_for_completion_blocking(20)
    assert target == source

def work(number):
    for _ in range(6):
        with nc.Connector() as passive, nc.Connector() as active:
            for _ in range(40):
                offer_and_read(passive, active)
                offer_and_read(active, passive)

threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(100)
    assert not thread.is_alive()
print("done")
"""


@pytest.mark.timeout(150)
def test_agents_that_come_and_go_while_others_tell():
    *logged, last = run_python("-c", IN_THREADS, timeout=140).stdout.splitlines()
    assert last == "done"
    # On a busy machine UCX may say that an agent had left when it connected, and nothing else.
    assert all("connection establishment" in line for line in logged), logged


def test_a_child_of_a_program_that_tells(make_connector, content):
    """It has no agents, and makes none; what its parent tells goes on."""
    passive, active = make_connector(), make_connector()
    offer = passive.create_readable_blocking(nc.Descriptor(content(1, 100)))
    read(active, offer.metadata())
    child = os.fork()
    if child == 0:
        try:
            nc.Connector().open_blocking()
        except nc.BackendError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    offer = passive.create_readable_blocking(nc.Descriptor(content(2, 100)))
    assert (read(active, offer.metadata()) == content(2, 100)).all()

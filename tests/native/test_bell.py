"""The doorbell: a hint, and no more than that."""

import contextlib
import os
import socket
import time

import numpy as np
import pytest
from doorbells import address
from processes import until

import nixl_connect as nc


def read_once(connector, peer, content, seed=0):
    made = peer.do("passive", kind="readable", sizes=[100], seed=seed)
    target = np.zeros(100, np.uint8)
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    with connector.begin_read_blocking(told, nc.Descriptor(target)) as operation:
        operation.wait_for_completion_blocking(10)
    assert (target == content(seed, 100)).all()
    peer.do("wait", number=made["id"])


def test_peers_on_one_host_ring(connector, peer, content):
    for seed in range(5):
        read_once(connector, peer, content, seed)
        time.sleep(0.02)  # so that the peer's thread sleeps again
    assert peer.do("stats")["stats"]["notifications"]["rings"] >= 5
    assert connector.stats()["notifications"]["rings"] == 0


def test_a_peer_is_rung_before_its_metadata_is_looked_at(connector, peer, content):
    """Once it is known who it is: here it turns out afterwards that the metadata has been used."""
    made = peer.do("passive", kind="readable", sizes=[100])
    target = nc.Descriptor(np.zeros(100, np.uint8))
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    connector.begin_read_blocking(told, target).wait_for_completion_blocking(10)
    peer.do("wait", number=made["id"])
    before = peer.do("stats")["stats"]["notifications"]["rings"]
    with pytest.raises(nc.StateError, match="has been used"):
        connector.begin_read_blocking(told, target)
    until(lambda: peer.do("stats")["stats"]["notifications"]["rings"] > before)


def test_a_flood_of_rings(connector, peer, content):
    """Of any content, from anybody: the thread looks as often, and everything goes on."""
    name = address(connector)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as anybody:
        end = time.monotonic() + 1
        seed = 0
        while time.monotonic() < end:
            for message in (b"", b"x", b"\0" * 1000):
                with contextlib.suppress(BlockingIOError):
                    anybody.sendto(message, name)
            if seed < 5:
                read_once(connector, peer, content, seed)
                seed += 1
    assert connector.stats()["notifications"]["rings"] > 0


def flood(name, user):
    """Ring for a second, as a user."""
    child = os.fork()
    if child == 0:
        os.setuid(user)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as anybody:
            end = time.monotonic() + 1
            while time.monotonic() < end:
                with contextlib.suppress(BlockingIOError):
                    anybody.sendto(b"x", name)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_who_rings_for_nothing_is_soon_ignored(connector):
    """Such rings wake the thread 64 times, and then once in a millisecond."""
    connector._open()
    began = time.monotonic()
    flood(address(connector), user=65534)
    figures = connector.stats()["notifications"]
    assert 64 < figures["rings"] < 80 + 1100 * (time.monotonic() - began)
    assert 0 < figures["rings_ignored"] <= figures["rings"] - 64


def test_the_same_user_is_always_heard(connector):
    connector._open()
    flood(address(connector), user=os.getuid())
    figures = connector.stats()["notifications"]
    assert figures["rings"] > 64
    assert figures["rings_ignored"] == 0


@pytest.mark.timeout(120)
def test_prepared_transfers_that_the_peer_serves(start_peer, make_connector, content, monkeypatch):
    """None of them is told, and all of them are heard of."""
    monkeypatch.setenv("UCX_TLS", "tcp")
    peer, connector = start_peer(), make_connector()
    made = peer.do("passive", kind="readable", sizes=[100], seed=3)
    target = np.zeros(100, np.uint8)
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    with connector.prepare_read_blocking(told, nc.Descriptor(target)) as prepared:
        for _ in range(300):
            target[:] = 0
            prepared.transfer_blocking(10)
            assert (target == content(3, 100)).all()
    figures = peer.do("stats")["stats"]["notifications"]
    assert figures["rings"] > 0
    assert figures["rings_ignored"] == 0


def test_a_fork_does_not_keep_the_name(make_connector):
    connector = make_connector("forked")
    name = address(connector)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"x"
        connector.close_blocking()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
            another.bind(name)  # fails if the child holds it
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *done):
            os.close(end)


def test_two_agents_of_one_name_have_a_doorbell_each(make_connector, peer, content):
    first, second = make_connector("shared"), make_connector("shared")
    assert address(first) != address(second)
    readable = second.create_readable_blocking(nc.Descriptor(content(1, 64)))
    time.sleep(0.02)
    reading = peer.do("active", kind="read", metadata=readable.metadata().model_dump(), sizes=[64])
    peer.do("wait", number=reading["id"])
    readable.wait_for_completion_blocking(10)
    assert second.stats()["notifications"]["rings"] >= 1
    assert first.stats()["notifications"]["rings"] == 0


def test_a_long_name(make_connector, peer, content):
    connector = make_connector("n" * 500)
    readable = connector.create_readable_blocking(nc.Descriptor(content(1, 64)))
    time.sleep(0.02)
    reading = peer.do("active", kind="read", metadata=readable.metadata().model_dump(), sizes=[64])
    peer.do("wait", number=reading["id"])
    readable.wait_for_completion_blocking(10)
    assert connector.stats()["notifications"]["rings"] >= 1


def test_it_is_gone_with_the_connector(make_connector):
    connector = make_connector()
    name = address(connector)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as anybody:
        anybody.sendto(b"x", name)
        connector.close_blocking()
        try:
            anybody.sendto(b"x", name)
        except ConnectionRefusedError:
            return
    raise AssertionError("the doorbell is still there")

"""What UCX keeps of connections that were taken down is closed, on both sides."""

import time

import numpy as np
import pytest
from processes import open_files, steady, told, until

import nixl_connect as nc
from nixl_connect.peers import messenger, peers


def read(connector, peer, content, seed):
    made = peer.do("passive", kind="readable", sizes=[64], seed=seed)
    array = np.zeros(64, np.uint8)
    with connector.begin_read_blocking(told(made), nc.Descriptor(array)) as operation:
        operation.wait_for_completion_blocking(10)
    assert (array == content(seed, 64)).all()
    peer.do("wait", number=made["id"])


def connect_anew(connector):
    """Have the next operation make other connections."""
    engine = connector._open()._engine
    for known in engine.peers.known():
        engine.peers.mark_broken(known)


@pytest.mark.parametrize("transport", ["all", "tcp"])
def test_connections_made_anew_leave_nothing(
    make_connector, start_peer, content, transport, monkeypatch
):
    """However often a living peer is connected, on neither side."""
    monkeypatch.setenv("UCX_TLS", transport)
    connector, peer = make_connector(), start_peer(environment={"UCX_TLS": transport})
    engine = connector._open()._engine

    def counts():
        agents = engine._agent, engine._messenger
        left = sum(agent.hang_up(messenger.UNUSED) for agent in agents)
        return None if left else (open_files(), open_files(peer.process.pid))

    read(connector, peer, content, 0)
    connect_anew(connector)
    read(connector, peer, content, 1)
    before = steady(counts)
    for rounds in range(60):
        connect_anew(connector)
        read(connector, peer, content, rounds)
    assert connector.stats()["peers"]["reloads"] == 61
    assert steady(counts) == before


def test_a_connection_that_the_peer_uses_too_is_left_alone(connector, peer, content, digest):
    """UCX may send both ways over one: what the peer does over it is not disturbed."""
    for seed in range(30):
        connect_anew(connector)
        read(connector, peer, content, seed)
        array = content(seed, 64)
        with connector.create_readable_blocking(nc.Descriptor(array)) as operation:
            metadata = operation.metadata().model_dump()
            begun = peer.do("active", kind="read", metadata=metadata, sizes=[64])
            peer.do("wait", number=begun["id"])
            operation.wait_for_completion_blocking(10)
        assert peer.do("digests", number=begun["id"])["digests"] == [digest(array)]


@pytest.mark.parametrize("prepared", [False, True], ids=["operation", "prepared"])
def test_a_quiet_one_that_was_closed_is_made_anew_by_the_peer(
    connector, peer, content, digest, monkeypatch, prepared
):
    """As after any break while nothing goes on: the peer looks before it uses it."""
    monkeypatch.setattr(peers, "_PERHAPS_USED", messenger.UNUSED)
    array = content(1, 64)
    offered = []

    def offer():
        offered.append(connector.create_readable_blocking(nc.Descriptor(array)))
        return offered[-1].metadata().model_dump()

    def theirs():
        """Have the peer read."""
        if prepared:
            assert peer.do("transfer")["digest"] == digest(array)
            return
        done = peer.do("active", kind="read", metadata=offer(), sizes=[64])
        peer.do("wait", number=done["id"])
        assert peer.do("digests", number=done["id"])["digests"] == [digest(array)]

    read(connector, peer, content, 0)
    if prepared:
        peer.do("prepare", metadata=offer(), size=64)
    theirs()
    agent = connector._open()._engine._agent
    for _ in range(3):
        connect_anew(connector)
        read(connector, peer, content, 0)
        until(lambda: agent.hang_up(messenger.UNUSED) == 0)
        time.sleep(0.1)  # longer than a connection is trusted without a look
        theirs()

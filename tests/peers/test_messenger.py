"""The second agent of a connection, which tells peers that their bytes have been moved."""

import ctypes

import numpy as np
import pytest
from calls import led
from processes import until

import nixl_connect as nc
from nixl_connect.peers import messenger
from nixl_connect.peers.peer import Peer


@pytest.fixture(autouse=True)
def relied_on(monkeypatch):
    """The messenger is relied on from the start."""
    monkeypatch.setattr(messenger, "_INTRODUCTION", 0.0)


def passive(peer, **arguments):
    made = peer.do("passive", kind="readable", **arguments)
    return made["id"], nc.RdmaMetadata.model_validate(made["metadata"])


def with_key(metadata, key):
    """The same memory under a key of the caller's own, of which no operation knows."""
    return nc.RdmaMetadata(
        descriptors=metadata.descriptors,
        nixl_metadata=metadata.nixl_metadata,
        notification_key=key,
        operation_kind=metadata.operation_kind,
    )


def read(connector, metadata, array):
    operation = connector.begin_read_blocking(metadata, nc.Descriptor(array))
    operation.wait_for_completion_blocking(10)


def test_a_small_read_needs_no_help_of_its_peer(connector, peer, content, monkeypatch):
    """Not after a notification either: that went over another connection.

    On a busy machine UCX may have yet to hear, when the peer is stopped, of what was said when they
    met: one read waits for that, and no other.
    """
    # However long a pause takes, the peer is not asked whether it is still there.
    monkeypatch.setattr(Peer, "is_quiet", False)
    _, metadata = passive(peer, sizes=[64], seed=3)
    array = np.zeros(64, np.uint8)
    read(connector, with_key(metadata, "a"), array)
    until(lambda: peer.do("stats")["stats"]["notifications"]["received"] == 1)
    waited = 0
    peer.stop()
    for key in "bcde":
        array[:] = 0
        operation = connector.begin_read_blocking(with_key(metadata, key), nc.Descriptor(array))
        try:
            operation.wait_for_completion_blocking(2)
        except nc.WaitTimeoutError:
            waited += 1
            peer.resume()
            operation.wait_for_completion_blocking(10)
            peer.stop()
        assert (array == content(3, 64)).all()
    peer.resume()
    assert waited <= 1


@pytest.fixture
def by_nixl(connector, monkeypatch):
    """Peers are told as those of other hosts are; returns a list of the agents that NIXL was given.

    For each transfer that is complete, and whether NIXL took the message.
    """
    monkeypatch.setattr(connector._open()._engine.peers, "_is_near", lambda _: False)
    told = []

    def call(original, agent, name, message, size, options):
        status = original(agent, name, message, size, options)
        if not ctypes.string_at(message, size).startswith(b"nixl_connect:"):
            told.append((agent, status == 0))
        return status

    with led("gen_notif", call):
        yield told


def test_the_peer_is_told_once_by_either(connector, peer, monkeypatch, by_nixl):
    """By the agent itself for as long as the messenger connects, and then by that."""
    array = np.zeros(64, np.uint8)
    for introduction in (60.0, 0.0):
        monkeypatch.setattr(messenger, "_INTRODUCTION", introduction)
        for _ in range(3):
            number, metadata = passive(peer, sizes=[64])
            read(connector, metadata, array)
            peer.do("wait", number=number)
        # The peer is met again.
        engine = connector._open()._engine
        (known,) = engine.peers.by_name.values()
        engine.peers.mark_broken(known)
        engine.peers._messenger.forget(known.name)
    notifications = peer.do("stats")["stats"]["notifications"]
    assert notifications["received"] == 6
    assert notifications["unmatched"] == 0
    (itself, _), *_, (its_messenger, _) = by_nixl
    assert itself != its_messenger
    assert by_nixl == [(itself, True)] * 3 + [(its_messenger, True)] * 3


def test_a_messenger_that_lost_its_connection(connector, peer, content, by_nixl):
    """The agent tells the peer in its place."""
    array = np.zeros(64, np.uint8)
    number, metadata = passive(peer, sizes=[64], seed=1)
    engine = connector._open()._engine
    agent = engine._messenger
    read(connector, with_key(metadata, "first"), array)
    agent.invalidate_remote(engine.peers._messenger._met[metadata_agent(metadata)].alias)
    read(connector, metadata, array)
    peer.do("wait", number=number)
    assert (array == content(1, 64)).all()
    number, metadata = passive(peer, sizes=[64], seed=2)
    read(connector, metadata, array)
    peer.do("wait", number=number)
    assert (array == content(2, 64)).all()
    ((its_messenger, taken), (_, refused), (itself, instead), *rest) = by_nixl
    assert (taken, refused, instead) == (True, False, True)
    assert itself != its_messenger
    assert rest == [(its_messenger, False), (itself, True)]


def metadata_agent(metadata):
    from nixl_connect.wire.codec import read_nixl_metadata

    return read_nixl_metadata(metadata.nixl_metadata, 1 << 20)[1].agent


def test_its_name_is_not_handed_out(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
    with operation:
        assert metadata_agent(operation.metadata()) == f"{connector.name}-1"
        assert b"messenger" not in connector._open().metadata


def test_an_agent_reads_from_itself(connector, content):
    source, target = content(4, 4096), np.zeros(4096, np.uint8)
    readable = connector.create_readable_blocking(nc.Descriptor(source))
    read(connector, readable.metadata(), target)
    readable.wait_for_completion_blocking(10)
    assert (source == target).all()

"""The second agent of a connection, which tells peers that their bytes have been moved."""

import threading

import numpy as np
import pytest
from processes import until

import nixl_connect as nc
from nixl_connect._native.capi import NativeError
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


def met(connector):
    """Wait until the messenger knows the one peer; return what it knows of it, and the peer."""
    peers = connector._open()._engine.peers
    (known,) = peers.by_name.values()
    until(lambda: known.told_as is not None)
    return peers._messenger._met[known.name], known


def test_a_small_read_needs_no_help_of_its_peer(connector, peer, content, monkeypatch):
    """Not after a notification either: that went over another connection."""
    # However long a pause takes, the peer is not asked whether it is still there.
    monkeypatch.setattr(Peer, "is_quiet", False)
    _, metadata = passive(peer, sizes=[64], seed=3)
    array = np.zeros(64, np.uint8)
    read(connector, with_key(metadata, "a"), array)
    until(lambda: peer.do("stats")["stats"]["notifications"]["received"] == 1)
    met(connector)
    peer.stop()
    for key in "bcd":
        array[:] = 0
        read(connector, with_key(metadata, key), array)
        assert (array == content(3, 64)).all()
    peer.resume()


def test_the_peer_is_told_once_by_either(connector, peer, monkeypatch):
    """By the agent itself for as long as the messenger connects, and then by that."""
    array = np.zeros(64, np.uint8)
    for introduction in (60.0, 0.0):
        monkeypatch.setattr(messenger, "_INTRODUCTION", introduction)
        for _ in range(3):
            number, metadata = passive(peer, sizes=[64])
            read(connector, metadata, array)
            peer.do("wait", number=number)
        _, known = met(connector)
        # The peer is met again.
        engine = connector._open()._engine
        engine.peers.mark_broken(known)
        engine.peers._messenger.forget(known.name)
    notifications = peer.do("stats")["stats"]["notifications"]
    assert notifications["received"] == 6
    assert notifications["unmatched"] == 0


def test_a_messenger_that_lost_its_connection(connector, peer, content):
    """The agent tells the peer in its place."""
    array = np.zeros(64, np.uint8)
    number, metadata = passive(peer, sizes=[64], seed=1)
    engine = connector._open()._engine
    agent = engine._messenger
    read(connector, with_key(metadata, "first"), array)
    agent.invalidate_remote(met(connector)[0].alias)
    read(connector, metadata, array)
    peer.do("wait", number=number)
    assert (array == content(1, 64)).all()
    number, metadata = passive(peer, sizes=[64], seed=2)
    read(connector, metadata, array)
    peer.do("wait", number=number)
    assert (array == content(2, 64)).all()


def test_nobody_waits_for_it_to_meet_a_peer_of_this_host(connector, peer, content, monkeypatch):
    """Nor is a peer lost, nor another, where it cannot."""
    meet = messenger.Messenger.meet
    entered, go_on = threading.Event(), threading.Event()
    failing = [MemoryError(), NativeError(-2, "load_remote_md")]

    def held_up(*arguments):
        entered.set()
        assert go_on.wait(30)
        if failing:
            raise failing.pop()
        return meet(*arguments)

    monkeypatch.setattr(messenger.Messenger, "meet", held_up)
    array = np.zeros(64, np.uint8)
    peers = connector._open()._engine.peers

    def read_over_another_connection(seed):
        for known in peers.by_name.values():
            peers.mark_broken(known)
        number, metadata = passive(peer, sizes=[64], seed=seed)
        read(connector, metadata, array)
        peer.do("wait", number=number)
        assert (array == content(seed, 64)).all()

    for seed in range(3):
        read_over_another_connection(seed)
        assert entered.wait(30)
        (known,) = peers.by_name.values()
        assert known.told_as is None
    go_on.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "nixl-meet"])
    # That of the second was given up before its turn.
    assert (known.told_as, failing) == (None, [])
    read_over_another_connection(3)
    met(connector)


def test_who_is_let_go_while_it_is_met_is_forgotten(connector, peer, monkeypatch):
    meet = messenger.Messenger.meet
    entered, go_on = threading.Event(), threading.Event()

    def held_up(*arguments):
        result = meet(*arguments)
        entered.set()
        assert go_on.wait(30)
        return result

    monkeypatch.setattr(messenger.Messenger, "meet", held_up)
    _, metadata = passive(peer, sizes=[64])
    read(connector, metadata, np.zeros(64, np.uint8))
    assert entered.wait(30)
    peers = connector._open()._engine.peers
    (known,) = peers.by_name.values()
    peers.mark_broken(known)
    peers._evict_idle()
    assert not peers.by_name
    go_on.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "nixl-meet"])
    assert peers._messenger._met == {}
    assert not peers._messenger._agent.reaches(known.alias)


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

"""Peers that are gone, and asked for again and again."""

import numpy as np
import pytest
from processes import open_files

import nixl_connect as nc
from nixl_connect import scout as scouts
from nixl_connect._native.capi import NativeError
from nixl_connect.scout import Scout

TIMES = 20


def told(made):
    return nc.RdmaMetadata.model_validate(made["metadata"])


def begin(connector, metadata):
    array = np.zeros(64, np.uint8)
    with connector.begin_read_blocking(metadata, nc.Descriptor(array)) as operation:
        operation.wait_for_completion_blocking(10)
    return array


@pytest.mark.parametrize("known", [False, True], ids=["stranger", "known"])
@pytest.mark.parametrize("pause", [0.0, 60.0])
def test_a_peer_that_is_gone_costs_no_descriptors(
    make_connector, start_peer, content, known, pause, monkeypatch
):
    """UCX keeps a socket of each attempt: there is at most one before the scouts go."""
    monkeypatch.setattr(scouts, "_PAUSE", pause)
    connector = make_connector()
    peer, other = start_peer(name="mortal"), start_peer()
    begin(connector, told(other.do("passive", kind="readable", sizes=[64])))
    made = [peer.do("passive", kind="readable", sizes=[64]) for _ in range(TIMES)]
    if known:
        begin(connector, told(made.pop()))
    before = open_files()
    peer.kill()
    for one in made:
        with pytest.raises(nc.PeerLostError, match="mortal"):
            begin(connector, told(one))
    assert open_files() <= before + 1
    # Its successor is reached at once, and others were not disturbed.
    for i, successor in enumerate((start_peer(name="mortal"), other)):
        array = begin(connector, told(successor.do("passive", kind="readable", sizes=[64], seed=i)))
        assert (array == content(i, 64)).all()


def test_a_peer_that_is_back_is_found_by_the_scout(connector, peer, content):
    """A connection that broke and could be made again: under the same metadata."""
    made = [peer.do("passive", kind="readable", sizes=[64], seed=5) for _ in range(2)]
    begin(connector, told(made[0]))
    peers = connector._open()._engine.peers
    (known,) = peers._peers.values()
    peers.mark_broken(known)
    assert (begin(connector, told(made[1])) == content(5, 64)).all()
    assert connector.stats()["peers"]["reloads"] == 1
    assert not peers._scout._failed


class LookedError(Exception):
    """An agent was started."""


@pytest.fixture
def scout(monkeypatch):
    def start_agent(*_):
        raise LookedError

    monkeypatch.setattr(scouts, "start_agent", start_agent)
    return Scout("name", {}, b"")


class Peer:
    """As much of an envelope as is looked at first."""

    sections_at = 0

    def __init__(self, agent, info):
        self.agent, self.connections = agent, {"UCX": info}


def test_who_is_looked_for(scout, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(scouts.time, "monotonic", lambda: now[0])
    peer, successor = Peer("a", b"1"), Peer("a", b"2")
    scout.look(peer, b"")  # a stranger
    scout.note("a", peer.connections, NativeError(-2, "load_remote_md"))
    scout.look(successor, b"")
    for _ in range(3):
        now[0] += 0.1
        if now[0] < 100.25:
            with pytest.raises(NativeError, match="ERR_BACKEND"):
                scout.look(peer, b"")
            # What is noted of an answer that was given without asking prolongs nothing.
            scout.note("a", peer.connections, NativeError(-2, "load_remote_md"))
    with pytest.raises(LookedError):
        scout.look(peer, b"")
    scout.forget("a")
    scout.look(peer, b"")
    scout.note("a", peer.connections)  # lost
    with pytest.raises(LookedError):
        scout.look(peer, b"")


def test_not_all_that_ever_failed_is_kept(scout):
    for i in range(scouts._MOST + 10):
        scout.note(str(i), {"UCX": b""})
    assert len(scout._failed) == scouts._MOST
    scout.look(Peer("0", b""), b"")  # forgotten
    with pytest.raises(LookedError):
        scout.look(Peer(str(scouts._MOST), b""), b"")

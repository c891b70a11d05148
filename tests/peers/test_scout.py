"""Peers that are gone, and asked for again and again."""

import numpy as np
import pytest
from processes import open_files, told

import nixl_connect as nc
from nixl_connect._native.capi import NativeError
from nixl_connect.peers import scout as scouts
from nixl_connect.peers.scout import Scout

TIMES = 20


def begin(connector, metadata):
    array = np.zeros(64, np.uint8)
    with connector.begin_read_blocking(metadata, nc.Descriptor(array)) as operation:
        operation.wait_for_completion_blocking(10)
    return array


@pytest.mark.parametrize("known", ["stranger", "known", "predecessor known"])
@pytest.mark.parametrize("pause", [0.0, 60.0])
def test_a_peer_that_is_gone_costs_no_descriptors(
    make_connector, start_peer, content, known, pause, monkeypatch
):
    """UCX keeps a socket of each attempt: there is at most one before the scouts go."""
    monkeypatch.setattr(scouts, "_PAUSE", pause)
    connector = make_connector()
    other = start_peer()
    begin(connector, told(other.do("passive", kind="readable", sizes=[64])))
    if known == "predecessor known":
        peer = start_peer(name="mortal")
        begin(connector, told(peer.do("passive", kind="readable", sizes=[64])))
        late = told(peer.do("passive", kind="readable", sizes=[64]))
        peer.kill()
        with pytest.raises(nc.PeerLostError, match="mortal"):
            begin(connector, late)
    peer = start_peer(name="mortal")
    made = [peer.do("passive", kind="readable", sizes=[64]) for _ in range(TIMES)]
    if known == "known":
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


@pytest.fixture
def no_scouts(monkeypatch):
    """Scouts that find nobody."""

    def start_agent(*_):
        raise LookedError

    monkeypatch.setattr(scouts, "start_agent", start_agent)


class LookedError(Exception):
    """An agent was started."""


@pytest.mark.usefixtures("no_scouts")
def test_a_peer_that_lives_needs_no_scout(connector, peer, content):
    """What broke, without its process being gone, is connected anew."""
    made = [peer.do("passive", kind="readable", sizes=[64], seed=5) for _ in range(2)]
    begin(connector, told(made[0]))
    peers = connector._open()._engine.peers
    (known,) = peers.by_name.values()
    assert known.near
    peers.mark_broken(known)
    assert (begin(connector, told(made[1])) == content(5, 64)).all()
    assert connector.stats()["peers"]["reloads"] == 1


@pytest.mark.usefixtures("no_scouts")
def test_a_known_process_that_is_gone_needs_no_scout(connector, peer):
    """Its doorbell is gone, too."""
    made = [peer.do("passive", kind="readable", sizes=[64]) for _ in range(5)]
    begin(connector, told(made.pop()))
    peer.kill()
    for one in made:
        with pytest.raises(nc.PeerLostError):
            begin(connector, told(one))


def test_a_late_word_of_a_predecessor_leaves_its_successor_as_it_is(connector, start_peer, content):
    """Its messenger, too: a small read needs no help of its peer."""
    old = start_peer(name="same")
    late = [told(old.do("passive", kind="readable", sizes=[64])) for _ in range(2)]
    begin(connector, late[0])
    old.kill()
    peer = start_peer(name="same")
    made = [told(peer.do("passive", kind="readable", sizes=[64], seed=i)) for i in range(4)]
    begin(connector, made[0])
    messenger = connector._open()._engine.peers._messenger
    met = messenger._met["same-1"]
    with pytest.raises(nc.PeerLostError):
        begin(connector, late[1])
    assert messenger._met["same-1"] is met
    assert messenger._agent.reaches(met.alias)
    for i in range(1, 4):
        assert (begin(connector, made[i]) == content(i, 64)).all()
    assert connector.stats()["peers"]["reloads"] == 1


@pytest.fixture
def scout(no_scouts):
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
    scout.note(peer, NativeError(-2, "load_remote_md"))
    scout.look(successor, b"")
    scout.note(successor, NativeError(-2, "load_remote_md"))
    for _ in range(2):
        now[0] += 0.1
        with pytest.raises(NativeError, match="ERR_BACKEND"):
            scout.look(peer, b"")
    now[0] += 0.1
    with pytest.raises(LookedError):
        scout.look(peer, b"")
    scout.forget(peer)
    scout.look(peer, b"")
    with pytest.raises(LookedError):
        scout.look(successor, b"")


def test_not_all_that_ever_failed_is_kept(scout, monkeypatch):
    monkeypatch.setattr(scouts, "_PAUSE", 0.0)
    for i in range(scouts._MOST + 10):
        scout.note(Peer(str(i), b""), NativeError(-2, "load_remote_md"))
    assert len(scout._failed) == scouts._MOST
    scout.look(Peer("0", b""), b"")  # forgotten
    with pytest.raises(LookedError):
        scout.look(Peer(str(scouts._MOST), b""), b"")

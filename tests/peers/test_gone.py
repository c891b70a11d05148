"""A peer of this host whose number another program has: it is gone, whatever UCX believes."""

import contextlib
import socket

import numpy as np
import pytest
from doorbells import address
from processes import told

import nixl_connect as nc
from nixl_connect.peers import lanes

SMALL, LARGE = 4096, 12 << 20
BYTE = 99  # of the next program's memory


def begin(connector, kind, made, buffer):
    """Begin a transfer of that kind; return what waits for it."""
    if kind == "read":
        operation = connector.begin_read_blocking(told(made), nc.Descriptor(buffer))
    else:
        operation = connector.begin_write_blocking(nc.Descriptor(buffer), told(made))
    return operation.wait_for_completion_blocking


def prepare(connector, kind, made, buffer):
    """Prepare one; return what makes it."""
    if kind == "read":
        return connector.prepare_read_blocking(told(made), nc.Descriptor(buffer)).transfer_blocking
    return connector.prepare_write_blocking(nc.Descriptor(buffer), told(made)).transfer_blocking


@pytest.mark.timeout(120)
@pytest.mark.parametrize("hand_down", [False, True], ids=["closed", "handed down"])
@pytest.mark.parametrize("size", [8, SMALL, LARGE])
@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_peer_that_became_another_program(
    start_forking, make_connector, monkeypatch, hand_down, size, kind
):
    """Nothing is read from that, nor written to it, also where UCX sees no difference."""
    monkeypatch.setattr(lanes, "COUNT", 2)
    offer = "readable" if kind == "read" else "writable"
    peer = start_forking()
    first, second, third, fourth = (
        peer.do("passive", kind=offer, sizes=[size], seed=1) for _ in range(4)
    )
    buffer = np.full(size, 7, np.uint8)
    again, beginning, other = make_connector(), make_connector(), make_connector()
    transfer = prepare(again, kind, first, buffer)
    transfer()
    begin(beginning, kind, second, buffer)(20)
    if size == LARGE:
        assert beginning.stats()["lanes"]["connections"] == 2
    begin(other, kind, fourth, buffer)(20)
    where = peer.do("address", number=third["id"])["address"]
    peer.do("become", address=where, size=size, byte=BYTE, hand_down=hand_down)
    with pytest.raises(nc.PeerLostError):
        begin(beginning, kind, third, buffer)(20)
    with pytest.raises(nc.PeerLostError):
        transfer(20)
    with pytest.raises(nc.PeerLostError):
        begin(beginning, kind, third | {"metadata": _renamed(third["metadata"])}, buffer)(20)
    with pytest.raises(nc.PeerLostError):
        prepare(other, kind, third, buffer)(20)
    assert peer.do("memory")["bytes"] == [BYTE]
    peer.end()  # what is in flight ends with the sockets


def _renamed(metadata):
    """Return metadata with another key, since none is used twice."""
    return metadata | {"notification_key": "0" * 32}


def test_a_prepared_transfer_says_that_its_peer_is_gone_when_it_is_closed(
    start_forking, make_connector
):
    peer = start_forking()
    made = peer.do("passive", kind="readable", sizes=[8], seed=1)
    into = nc.Descriptor(np.zeros(8, np.uint8))
    prepared = make_connector().prepare_read_blocking(told(made), into)
    prepared.transfer_blocking(20)
    where = peer.do("address", number=made["id"])["address"]
    peer.do("become", address=where, size=8, byte=BYTE, hand_down=True)
    with pytest.raises(nc.PeerLostError):
        prepared.close()
    assert prepared.closed
    peer.end()


def test_metadata_of_a_program_that_was_another_before_anybody_connected(
    start_forking, make_connector
):
    for kind, offer in (("read", "readable"), ("write", "writable")):
        peer = start_forking()
        made = peer.do("passive", kind=offer, sizes=[SMALL], seed=1)
        where = peer.do("address", number=made["id"])["address"]
        peer.do("become", address=where, size=SMALL, byte=BYTE, hand_down=False)
        with pytest.raises(nc.PeerLostError):
            begin(make_connector(), kind, made, np.zeros(SMALL, np.uint8))(20)
        assert peer.do("memory")["bytes"] == [BYTE]


def test_a_program_that_opens_under_the_name_of_its_predecessor(start_forking, make_connector):
    """Is another peer: what it offers is reached, and what the other one offered is lost."""
    peer, connector = start_forking(), make_connector()
    peer.do("connect", name="worker")
    first, left = (peer.do("passive", kind="readable", sizes=[64], seed=1) for _ in range(2))
    buffer = np.zeros(64, np.uint8)
    begin(connector, "read", first, buffer)(20)
    peer.do("start_over", name="worker")
    with pytest.raises(nc.PeerLostError):
        begin(connector, "read", left, buffer)(20)
    made = peer.do("passive", kind="readable", sizes=[64], seed=2)
    begin(connector, "read", made, buffer)(20)
    peer.do("wait", number=made["id"])
    assert [report.near for report in connector.peers()] == [True]


def test_who_is_near(make_connector, peer, content):
    """Who has the doorbell of exactly this agent; no namesake, and nobody by another socket."""
    connector, namesake = make_connector(), make_connector("prefill")
    namesake._open()
    peer.do("connect", name="prefill")
    made = peer.do("passive", kind="readable", sizes=[64], seed=1)
    begin(connector, "read", made, np.zeros(64, np.uint8))(20)
    assert [report.near for report in connector.peers()] == [True]
    reactor = connector._open()._engine._reactor
    (known,) = connector._open()._engine.peers.known()
    assert reactor.is_near(known.identity)
    assert not reactor.is_near(bytes(16))
    assert address(namesake) != address(connector)
    peer.do("close")
    assert not reactor.is_near(known.identity)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as stranger:
        letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
        stranger.bind(b"\0nixl_connect/2/" + known.identity.hex().translate(letters).encode())
        assert not reactor.is_near(known.identity)

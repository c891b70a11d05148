"""Who waits for a peer learns that it has gone, also in the middle of a transfer."""

import contextlib
import time

import numpy as np
import pytest
from processes import PeerError

import nixl_connect as nc
from nixl_connect import OperationStatus

SIZE = 256 << 20
DEADLINE = 30
TCP = {"UCX_TLS": "tcp"}


@pytest.fixture(params=["copies between processes", "TCP"])
def sides(request, start_peer, make_connector, monkeypatch):
    """A connector, and a peer that has moved something of its before."""
    environment = TCP if request.param == "TCP" else {}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    connector, peer = make_connector(quarantine=2.0), start_peer(environment=environment)
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
    made = peer.do("active", kind="read", metadata=told(operation), sizes=[8])
    peer.do("wait", number=made["id"])
    operation.wait_for_completion_blocking(DEADLINE)
    return connector, peer


def told(operation):
    return operation.metadata().model_dump()


def begun(connector, peer, kind, transfers=1):
    """Have a peer begin something that takes long, and stop it meanwhile."""
    while True:
        memory = np.zeros(SIZE, np.uint8)
        make = (
            connector.create_readable_blocking
            if kind == "read"
            else connector.create_writable_blocking
        )
        operation = make(nc.Descriptor(memory), transfers=transfers)
        made = peer.do("active", kind=kind, metadata=told(operation), sizes=[SIZE])
        peer.stop()
        time.sleep(0.1)
        if operation.status == OperationStatus.INITIALIZED and operation.transfers_done == 0:
            return operation
        # It was too quick.
        peer.resume()
        peer.do("wait", number=made["id"], timeout=DEADLINE)
        if transfers == 1:
            operation.wait_for_completion_blocking(DEADLINE)
        else:
            operation.finish()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_process_that_ends_while_it_moves(sides, kind):
    connector, peer = sides
    operation = begun(connector, peer, kind)
    # One that is stopped may go on.
    with pytest.raises(nc.WaitTimeoutError):
        operation.wait_for_completion_blocking(1.5)
    peer.kill()
    began = time.monotonic()
    with pytest.raises(nc.PeerLostError, match="has ended"):
        operation.wait_for_completion_blocking(DEADLINE)
    assert time.monotonic() - began < 10  # and not its deadline, minutes later
    assert connector.stats()["operations"]["quarantined_bytes"] == SIZE


@pytest.mark.timeout(150)
def test_one_that_is_stopped_for_a_while(sides):
    connector, peer = sides
    operation = begun(connector, peer, "read")
    time.sleep(1.2)
    peer.resume()
    operation.wait_for_completion_blocking(DEADLINE)


@pytest.mark.timeout(150)
def test_an_offer_to_many_goes_on(sides):
    """One of its movers is lost: others may come."""
    connector, peer = sides
    operation = begun(connector, peer, "read", transfers=2)
    peer.kill()
    with pytest.raises(nc.WaitTimeoutError):
        operation.wait_for_completion_blocking(2)
    operation.finish()


@pytest.mark.timeout(150)
def test_whoever_has_prepared_a_transfer(sides):
    """The passive side waits for all its posts; between two of them the peer dies."""
    connector, peer = sides
    operation = connector.create_readable_blocking(nc.Descriptor(np.zeros(100, np.uint8)))
    peer.do("prepare", metadata=told(operation), size=100)
    peer.do("transfer")
    with pytest.raises(nc.WaitTimeoutError):
        operation.wait_for_completion_blocking(0.7)
    peer.kill()
    with pytest.raises(nc.PeerLostError):
        operation.wait_for_completion_blocking(DEADLINE)


def test_short_ones_say_nothing_of_themselves(start_peer, make_connector):
    """What is over at once needs no more than two datagrams."""
    connector, peer = make_connector(), start_peer()
    for number in range(21):
        if number == 1:  # they have met
            before = connector.stats()["notifications"]["rings"]
        operation = connector.create_readable_blocking(nc.Descriptor(bytearray(100)))
        made = peer.do("active", kind="read", metadata=told(operation), sizes=[100])
        peer.do("wait", number=made["id"])
        operation.wait_for_completion_blocking(DEADLINE)
    assert connector.stats()["notifications"]["rings"] - before < 50


def test_nobody_in_particular(connector, peer):
    """A peer that has never begun is not missed: metadata may wait for a reader."""
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(100)))
    told(operation)
    peer.kill()
    with pytest.raises(nc.WaitTimeoutError):
        operation.wait_for_completion_blocking(1.2)
    with contextlib.suppress(PeerError):
        operation.cancel()

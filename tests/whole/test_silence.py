"""Peers of other hosts that move bytes for long: heard, silent, and gone."""

import time

import pytest
from networks import Network, require_namespaces
from processes import Peer

pytestmark = pytest.mark.timeout(150)
SIZE = 32 << 20
RATE = "40mbit"  # some seven seconds for that
SILENCE = 3.0
DEADLINE = 60


@pytest.fixture
def network():
    """Two hosts, which hear each other slowly."""
    require_namespaces()
    made = Network(2)
    for host in made.hosts:
        host.slow(RATE)
    yield made
    made.delete()


@pytest.fixture
def sides(network):
    """A peer on each, and they have met."""
    made = []
    for host, options in zip(network.hosts, ({"peer_silence": SILENCE}, {}), strict=True):
        made.append(
            Peer({"UCX_TLS": "tcp", "UCX_NET_DEVICES": ",".join(host.devices)}, prefix=host.prefix)
        )
        made[-1].do("connect", name=None, options={"quarantine": 0.5} | options)
    finish(*made, *begin(*made, "read", 8))
    yield made
    for peer in made:
        peer.end()


def begin(passive, active, kind, size=SIZE, **options):
    offer = "readable" if kind == "read" else "writable"
    made = passive.do("passive", kind=offer, sizes=[size], seed=3, **options)
    begun = active.do("active", kind=kind, metadata=made["metadata"], sizes=[size], seed=3)
    return made["id"], begun["id"]


def finish(passive, active, offered, begun):
    active.do("wait", number=begun, timeout=DEADLINE)
    passive.do("wait", number=offered, timeout=DEADLINE)
    assert active.do("digests", number=begun) == passive.do("digests", number=offered)


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_transfer_that_takes_long_is_heard(sides, kind):
    """Twice as long as a silence may last."""
    passive, active = sides
    numbers = begin(passive, active, kind)
    began = time.monotonic()
    finish(passive, active, *numbers)
    assert time.monotonic() - began > SILENCE + 2


def fails(peer, number, kind="PeerLostError", text="for peer_silence", within=15.0):
    began = time.monotonic()
    with pytest.raises(Exception, match=f"{kind}.*{text}"):
        peer.do("wait", number=number, timeout=within)
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("end", ["killed", "stopped", "cut off"])
def test_one_that_falls_silent(network, sides, kind, end):
    """After so many seconds the passive side gives up, and not before; whatever the reason."""
    passive, active = sides
    offered, _ = begin(passive, active, kind)
    time.sleep(2.5)
    if end == "killed":
        active.kill()
    elif end == "stopped":
        active.stop()
    else:
        network.cut(network.hosts[1])
    assert SILENCE - 1.5 < fails(passive, offered) < SILENCE + 4
    if end == "stopped":
        active.resume()
    elif end == "cut off":
        network.heal(network.hosts[1])

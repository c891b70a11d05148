"""Peers of other hosts that move bytes for long: heard, silent, and gone."""

import contextlib
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


@contextlib.contextmanager
def started(host, **options):
    """A peer on a host."""
    environment = {"UCX_TLS": "tcp", "UCX_NET_DEVICES": ",".join(host.devices)}
    peer = Peer(environment, prefix=host.prefix)
    try:
        peer.do("connect", name=None, options={"quarantine": 0.5} | options)
        yield peer
    finally:
        peer.end()


@pytest.fixture
def sides(network):
    """A peer on each, and they have met."""
    passive, active = network.hosts
    with started(passive, peer_silence=SILENCE) as one, started(active) as other:
        finish(one, other, *begin(one, other, "read", 8))
        yield one, other


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


def test_one_that_gives_up_is_heard_until_it_has_done_with_the_memory(sides):
    """It is cancelled at once, and drained for longer than a silence may last."""
    passive, active = sides
    offered, begun = begin(passive, active, "read")
    time.sleep(1.0)
    active.do("cancel", number=begun)
    lasted = fails(passive, offered, kind="OperationCancelledError", text="by the peer", within=30)
    assert lasted > SILENCE


def test_without_the_option_nothing_is_given_up(network):
    """Who is stopped may come back."""
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(started(host)) for host in network.hosts]
        finish(*sides, *begin(*sides, "read", 8))
        offered, begun = begin(*sides, "write")
        time.sleep(1.0)
        sides[1].stop()
        fails(sides[0], offered, kind="WaitTimeoutError", text="did not end", within=SILENCE + 2)
        sides[1].resume()
        finish(*sides, offered, begun)

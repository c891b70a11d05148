"""A network between peers, in namespaces of their own: cut, healed, and gone for good."""

import time

import pytest
from networks import Network, require_namespaces
from processes import Peer, open_files, until

TCP = {
    "UCX_TLS": "tcp",
    "UCX_LOG_FILE": "stderr",  # the peers' answers are on the standard output
}
SIZE = 1 << 20


@pytest.fixture
def network():
    """Three hosts."""
    require_namespaces()
    made = Network(3)
    yield made
    made.delete()


@pytest.fixture
def start(network):
    """Start a peer on a host."""
    peers = []

    def start(host, name=None, environment=None, **options):
        devices = {"UCX_NET_DEVICES": ",".join(host.devices)}
        peer = Peer(TCP | devices | (environment or {}), prefix=host.prefix)
        peers.append(peer)
        peer.do("connect", name=name, options=options)
        return peer

    yield start
    for peer in peers:
        peer.end()


def read(passive, active, size=SIZE, seed=0, timeout=20):
    """Read, and compare."""
    made = passive.do("passive", kind="readable", sizes=[size], seed=seed, timeout=timeout)
    begun = active.do(
        "active", kind="read", metadata=made["metadata"], sizes=[size], timeout=timeout
    )
    active.do("wait", number=begun["id"], timeout=timeout)
    passive.do("wait", number=made["id"], timeout=timeout)
    theirs = passive.do("digests", number=made["id"])
    assert active.do("digests", number=begun["id"]) == theirs


def write(passive, active, size=SIZE, seed=0):
    """Write, and compare."""
    made = passive.do("passive", kind="writable", sizes=[size])
    begun = active.do("active", kind="write", metadata=made["metadata"], sizes=[size], seed=seed)
    active.do("wait", number=begun["id"])
    passive.do("wait", number=made["id"])
    theirs = passive.do("digests", number=made["id"])
    assert active.do("digests", number=begun["id"]) == theirs


def fails(peer, kind, number, timeout=15):
    with pytest.raises(Exception, match=kind):
        peer.do("wait", number=number, timeout=timeout)


def settled(peer):
    stats = peer.do("stats")["stats"]["operations"]
    return stats["held"] == stats["active"] == 0


def test_a_namesake_on_this_host(network, start):
    """Makes nobody near, who is on another one: large transfers go there as any other."""
    left, middle, _ = network.hosts
    large = {"UCX_TLS": "tcp,cma"}  # with lanes, for those who are near
    far, namesake = start(left, "prefill", large), start(middle, "prefill", large)
    active = start(middle, None, large)
    read(namesake, active)
    assert [peer["near"] for peer in active.do("peers")["peers"]] == [True]
    for seed in range(2):
        read(far, active, 8 << 20, seed)
        assert not active.do("peers")["peers"][0]["near"]
    assert active.do("stats")["stats"]["lanes"]["connections"] == 0
    read(namesake, active, 8 << 20)
    assert active.do("stats")["stats"]["lanes"]["connections"] > 0


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_cut_that_heals(network, start, kind):
    """What was begun before or during it ends well once it heals."""
    left, middle, _ = network.hosts
    passive, active = start(left), start(middle)
    read(passive, active)
    offer = "readable" if kind == "read" else "writable"
    made = passive.do("passive", kind=offer, sizes=[SIZE], seed=3)
    network.cut(left)
    begun = active.do("active", kind=kind, metadata=made["metadata"], sizes=[SIZE], seed=3)
    time.sleep(0.3)
    network.heal(left)
    active.do("wait", number=begun["id"])
    passive.do("wait", number=made["id"])
    assert active.do("digests", number=begun["id"]) == passive.do("digests", number=made["id"])
    read(passive, active, seed=4)
    assert active.do("stats")["stats"]["peers"]["reloads"] == 0


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_cut_that_lasts(network, start, kind):
    """Each side's deadline ends its operation; another peer notices nothing; then it heals."""
    left, middle, right = network.hosts
    passive, active, other = start(left, quarantine=1.0), start(middle), start(right)
    read(passive, active)
    read(other, active)
    offer = "readable" if kind == "read" else "writable"
    made = passive.do("passive", kind=offer, sizes=[SIZE], timeout=1.5)
    network.cut(left)
    began = time.monotonic()
    begun = active.do("active", kind=kind, metadata=made["metadata"], sizes=[SIZE], timeout=1.0)
    for seed in range(5):
        read(other, active, seed=seed)
    fails(active, "TransferTimeoutError|PeerLostError", begun["id"])
    fails(passive, "TransferTimeoutError", made["id"])
    assert time.monotonic() < began + 10
    for seed in range(5):
        read(other, active, seed=seed)
    network.heal(left)
    until(lambda: settled(active) and settled(passive))
    read(passive, active, seed=7)
    read(other, active, seed=8)


def test_a_link_that_goes_down(network, start):
    left, middle, _ = network.hosts
    passive, active = start(left), start(middle)
    read(passive, active)
    made = passive.do("passive", kind="readable", sizes=[SIZE], seed=3)
    network.unplug(left)
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[SIZE])
    time.sleep(0.3)
    network.plug(left)
    active.do("wait", number=begun["id"])
    passive.do("wait", number=made["id"])
    assert active.do("digests", number=begun["id"]) == passive.do("digests", number=made["id"])


@pytest.mark.parametrize("kind", ["read", "write"])
def test_connections_that_are_reset_are_made_anew(network, start, kind):
    """No operation fails that begins when the agents have seen it."""
    left, middle, _ = network.hosts
    passive, active = start(left), start(middle)
    move = {"read": read, "write": write}[kind]
    for rounds in range(4):
        move(passive, active, seed=rounds)
        assert active.do("stats")["stats"]["peers"]["reloads"] == rounds
        network.reset(left, middle)
        time.sleep(0.5)


def test_a_peer_that_dies_behind_a_cut(network, start):
    """Nothing says that it is gone, before the cut heals; then its successor is reached."""
    left, middle, _ = network.hosts
    passive, active = start(left, name="mortal"), start(middle)
    read(passive, active)
    made = passive.do("passive", kind="readable", sizes=[SIZE])
    network.cut(left)
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[SIZE], timeout=3)
    passive.kill()
    fails(active, "PeerLostError|TransferTimeoutError", begun["id"])
    network.heal(left)
    until(lambda: settled(active))
    successor = start(left, name="mortal")
    read(successor, active, seed=5)


def test_a_host_that_does_not_answer_holds_up_no_other(network, start):
    """Nothing comes back, not even an error: a connection there would take minutes to fail."""
    left, middle, right = network.hosts
    passive, active, other = start(left), start(middle), start(right)
    read(other, active)
    made = passive.do("passive", kind="readable", sizes=[SIZE])
    middle.learn(left)
    network.cut(left)
    began = time.monotonic()
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[SIZE], timeout=2)
    for seed in range(20):
        read(other, active, seed=seed)
    assert time.monotonic() < began + 2
    fails(active, "TransferTimeoutError|PeerLostError", begun["id"])
    network.heal(left)
    until(lambda: settled(active))
    passive.do("cancel", number=made["id"])
    read(passive, active, seed=1)


def test_a_peer_that_is_gone_from_its_host_costs_no_descriptors(network, start):
    left, middle, right = network.hosts
    passive, active, other = start(left), start(middle), start(right)
    read(passive, active)
    read(other, active)
    before = open_files(active.process.pid)
    made = [passive.do("passive", kind="readable", sizes=[64]) for _ in range(10)]
    passive.kill()
    for one in made:
        with pytest.raises(Exception, match="PeerLostError"):
            active.do(
                "wait",
                number=active.do("active", kind="read", metadata=one["metadata"], sizes=[64])["id"],
            )
    until(lambda: open_files(active.process.pid) <= before + 1)
    read(other, active)


def test_a_peer_that_cannot_be_reached_at_first(network, start):
    """A beginning to an unreachable peer ends by its deadline at the latest, and heals."""
    left, middle, _ = network.hosts
    passive, active = start(left), start(middle)
    made = passive.do("passive", kind="readable", sizes=[SIZE])
    network.cut(left)
    began = time.monotonic()
    active.send("active", kind="read", metadata=made["metadata"], sizes=[SIZE], timeout=1.0)
    with pytest.raises(Exception, match=r"TransferTimeoutError|PeerLostError"):
        active.do("wait", number=active.answer()["id"])
    assert time.monotonic() < began + 15
    network.heal(left)
    until(lambda: settled(active), 30)
    passive.do("cancel", number=made["id"])
    read(passive, active, seed=1)


def test_two_hosts_with_one_address(network, start):
    """On an interface that leads nowhere; UCX tries it, and the error does not blame the peer."""
    hosts = network.hosts[:2]
    for host in hosts:
        host.add_device("bridge0", "172.17.0.1/16")
    everywhere = {"UCX_NET_DEVICES": "all"}
    passive, active = (start(host, environment=everywhere) for host in hosts)
    made = passive.do("passive", kind="readable", sizes=[SIZE])
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[SIZE])
    with pytest.raises(Exception, match=r"or could not be made: .*UCX_NET_DEVICES names") as caught:
        active.do("wait", number=begun["id"])
    assert caught.value.kind == "PeerLostError"
    passive, active = (start(host) for host in hosts)
    read(passive, active)

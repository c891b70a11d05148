"""Peers that register again, restart, or appear under a name that is known."""

import base64
import threading
import zlib

import numpy as np
import pytest
from processes import open_files, told

import nixl_connect as nc
from nixl_connect._native import envelope
from nixl_connect.wire.codec import decode_nixl_metadata

TCP = {"UCX_TLS": "tcp"}
LARGE = 16 << 20


def rekeyed(metadata: dict) -> nc.RdmaMetadata:
    """Return metadata whose last region has another key, which still reads the right bytes.

    UCX accepts a key whose last byte has its lowest bit flipped. On shared memory and TCP keys
    never change by themselves, so this is how a registration of RDMA hardware looks to the peer.
    """
    told = nc.RdmaMetadata.model_validate(metadata)
    blob = bytearray(decode_nixl_metadata(told.nixl_metadata, 1 << 20))
    assert blob[-1:] == b"|"
    blob[-2] ^= 1
    envelope.parse(bytes(blob))
    text = "b64:" + base64.b64encode(zlib.compress(bytes(blob))).decode()
    return nc.RdmaMetadata.model_validate(told.model_dump() | {"nixl_metadata": text})


def read(connector, told, size):
    """Read, also what has been read before: under a key that is no operation's."""
    told = nc.RdmaMetadata.model_validate(told.model_dump() | {"notification_key": "again"})
    array = np.zeros(size, np.uint8)
    with connector.begin_read_blocking(told, nc.Descriptor(array)) as operation:
        operation.wait_for_completion_blocking(10)
    return array


def counted(connector):
    """The figures of peers, but for those of connections that are on their way out."""
    figures = connector.stats()["peers"]
    assert figures.pop("connections") >= figures["count"]
    return figures


def test_a_known_peer_is_not_loaded_again(connector, peer):
    for _ in range(3):
        made = peer.do("passive", kind="readable", sizes=[64])
        read(connector, nc.RdmaMetadata.model_validate(made["metadata"]), 64)
    assert counted(connector) == {"count": 1, "reloads": 0, "evictions": 0}


def test_a_region_with_another_key_reconnects_its_peer_only(connector, start_peer, content):
    peers = [start_peer(), start_peer()]
    made = [peer.do("passive", kind="readable", sizes=[64], seed=i) for i, peer in enumerate(peers)]
    for one in made:
        read(connector, nc.RdmaMetadata.model_validate(one["metadata"]), 64)
    for rounds in range(1, 21):
        # The same region, under another key than the last time.
        told = nc.RdmaMetadata.model_validate(made[0]["metadata"])
        if rounds % 2:
            told = rekeyed(made[0]["metadata"])
        assert (read(connector, told, 64) == content(0, 64)).all()
        # Two connections, beside each other.
        assert counted(connector) == {"count": 2, "reloads": 1, "evictions": 0}
        other = nc.RdmaMetadata.model_validate(made[1]["metadata"])
        assert (read(connector, other, 64) == content(1, 64)).all()


def test_an_overlapping_region_with_another_key_reconnects(connector, peer, content):
    made = peer.do("passive", kind="readable", sizes=[128], seed=4)
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    read(connector, told, 128)
    # The same memory, as a region that begins 32 bytes later and has another key.
    blob = bytearray(decode_nixl_metadata(rekeyed(made["metadata"]).nixl_metadata, 1 << 20))
    item = told.descriptors[0]
    old = item.ptr.to_bytes(8, "little") + item.size.to_bytes(8, "little")
    new = (item.ptr + 32).to_bytes(8, "little") + (item.size - 32).to_bytes(8, "little")
    assert blob.count(old) == 1
    moved = bytes(blob).replace(old, new)
    fields = told.model_dump() | {
        "nixl_metadata": "b64:" + base64.b64encode(zlib.compress(moved)).decode(),
        "descriptors": [{"device": "cpu", "ptr": item.ptr + 32, "size": item.size - 32}],
    }
    got = read(connector, nc.RdmaMetadata.model_validate(fields), 96)
    assert (got == content(4, 128)[32:]).all()
    assert connector.stats()["peers"]["reloads"] == 1


@pytest.mark.parametrize("transport", ["shared memory", "tcp"])
@pytest.mark.parametrize("end", ["kill", "close"])
def test_a_peer_that_restarts_under_its_name(connector, start_peer, content, transport, end):
    environment = {} if transport == "shared memory" else {"UCX_TLS": "tcp"}
    for generation in range(3):
        peer = start_peer("worker", environment)
        for _ in range(2):
            made = peer.do("passive", kind="readable", sizes=[64], seed=generation)
            told = nc.RdmaMetadata.model_validate(made["metadata"])
            assert (read(connector, told, 64) == content(generation, 64)).all()
        late = peer.do("passive", kind="readable", sizes=[128], seed=9)
        if end == "kill":
            peer.kill()
        else:
            peer.do("close")
        with pytest.raises(nc.PeerLostError):
            read(connector, nc.RdmaMetadata.model_validate(late["metadata"]), 128)


def test_a_ledger_at_its_limit_starts_anew(make_connector, peer, keys_name_memory):
    connector = make_connector(max_peer_regions=3)
    kept = [peer.do("passive", kind="readable", sizes=[64]) for _ in range(8)]
    for made in kept:
        read(connector, nc.RdmaMetadata.model_validate(made["metadata"]), 64)
    assert connector.stats()["peers"]["reloads"] >= 2


def hung(connector, peer):
    """Return a read of a peer that is stopped, which does not end."""
    made = peer.do("passive", kind="readable", sizes=[1 << 20], seed=7)
    read(connector, told(peer.do("passive", kind="readable", sizes=[8])), 8)
    peer.stop()
    array = np.zeros(1 << 20, np.uint8)
    operation = connector.begin_read_blocking(told(made), nc.Descriptor(array), timeout=60)
    return operation, array


def test_a_successor_does_not_wait_for_what_hangs(make_connector, start_peer, content):
    """The transfer that hangs ends over its own connection when its peer goes on."""
    connector = make_connector()
    old = start_peer(name="same", environment=TCP)
    operation, array = hung(connector, old)
    successor = start_peer(name="same", environment=TCP)
    for seed in range(3):
        made = successor.do("passive", kind="readable", sizes=[100], seed=seed)
        assert (read(connector, told(made), 100) == content(seed, 100)).all()
    assert counted(connector) == {"count": 1, "reloads": 1, "evictions": 0}
    assert not operation.status.is_final
    old.resume()
    operation.wait_for_completion_blocking(20)
    assert (array == content(7, 1 << 20)).all()


def test_another_key_does_not_wait_for_what_is_in_flight(connector, peer, content):
    made = peer.do("passive", kind="readable", sizes=[64], seed=1)
    read(connector, told(made), 64)
    peers = connector._open()._engine.peers
    (known,) = peers.by_name.values()
    known.join()
    for rounds in range(4):
        other = told(made) if rounds % 2 else rekeyed(made["metadata"])
        assert (read(connector, other, 64) == content(1, 64)).all()
        assert connector.stats()["peers"]["reloads"] == 1
    known.leave()


def with_a_key_that_is_none(metadata):
    blob = decode_nixl_metadata(told(metadata).nixl_metadata, 1 << 20)
    (section,) = envelope.parse(blob).sections
    key = section.regions[0][3]
    forged = blob.replace(key, b"\xff" * len(key))
    text = "b64:" + base64.b64encode(zlib.compress(forged)).decode()
    hostile = told(metadata).model_dump() | {"nixl_metadata": text}
    return nc.RdmaMetadata.model_validate(hostile)


def test_a_key_that_is_refused_disturbs_nothing_in_flight(connector, peer, content):
    """NIXL frees all keys of a peer of which it refuses one: that is another peer to it."""
    made = [peer.do("passive", kind="readable", sizes=[LARGE], seed=i) for i in range(6)]
    read(connector, told(peer.do("passive", kind="readable", sizes=[8])), 8)
    hostile = with_a_key_that_is_none(peer.do("passive", kind="readable", sizes=[64]))
    peer.stop()
    arrays = [np.zeros(LARGE, np.uint8) for _ in made]
    begun = [
        connector.begin_read_blocking(told(one), nc.Descriptor(array), timeout=20)
        for one, array in zip(made, arrays, strict=True)
    ]
    with pytest.raises(nc.PeerLostError):
        read(connector, hostile, 64)
    peer.resume()
    for i, (operation, array) in enumerate(zip(begun, arrays, strict=True)):
        operation.wait_for_completion_blocking(20)
        assert (array == content(i, LARGE)).all()
        peer.do("wait", number=made[i]["id"])
    assert connector.stats()["peers"]["reloads"] == 0


@pytest.mark.parametrize("known", [False, True], ids=["stranger", "known"])
def test_a_key_that_is_refused_spoils_no_name(connector, peer, content, known):
    """Somebody else may have made it up: the peer itself goes on being reached."""
    made = [peer.do("passive", kind="readable", sizes=[64], seed=i) for i in range(2)]
    if known:
        read(connector, told(made[0]), 64)
    for _ in range(3):
        with pytest.raises(nc.PeerLostError):
            read(connector, with_a_key_that_is_none(made[1]), 64)
    for i, genuine in enumerate(made):
        assert (read(connector, told(genuine), 64) == content(i, 64)).all()


def test_what_was_given_up_is_taken_down(make_connector, start_peer):
    """When nothing is in flight over it any more, and another connection is made."""
    connector = make_connector()
    for _ in range(3):
        peer = start_peer(name="same")
        read(connector, told(peer.do("passive", kind="readable", sizes=[64])), 64)
        peer.kill()
    peers = connector._open()._engine.peers
    assert len(peers._given_up) == 1
    other = start_peer()
    read(connector, told(other.do("passive", kind="readable", sizes=[64])), 64)
    assert not peers._given_up
    assert connector.stats()["peers"]["reloads"] == 2


def test_a_reconnection_that_is_not_to_be_had_leaves_the_peer_as_it_was(
    make_connector, peer, monkeypatch, keys_name_memory
):
    """What is known of it goes on."""
    connector = make_connector(max_peer_regions=1)
    one = peer.do("passive", kind="readable", sizes=[64])
    other = peer.do("passive", kind="readable", sizes=[64])
    told = [nc.RdmaMetadata.model_validate(made["metadata"]) for made in (one, other)]
    again = nc.RdmaMetadata.model_validate(one["metadata"] | {"notification_key": "again"})
    read(connector, told[0], 64)

    def refused(*_):
        raise nc.PeerLostError("it does not want to be connected")

    with monkeypatch.context() as patch:
        patch.setattr(connector._open()._engine.peers, "_load", refused)
        with pytest.raises(nc.PeerLostError):
            read(connector, told[1], 64)
    read(connector, again, 64)
    assert connector.stats()["peers"]["reloads"] == 0
    read(connector, told[1], 64)
    assert connector.stats()["peers"]["reloads"] == 1


def test_a_write_to_a_readable_operation_and_the_reverse_move_nothing(connector, peer):
    readable = peer.do("passive", kind="readable", sizes=[64])
    writable = peer.do("passive", kind="writable", sizes=[64])
    descriptor = nc.Descriptor(np.ones(64, np.uint8))
    with pytest.raises(nc.PairingError) as caught:
        connector.begin_write_blocking(
            descriptor, nc.RdmaMetadata.model_validate(readable["metadata"])
        )
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(nc.PairingError):
        connector.begin_read_blocking(
            nc.RdmaMetadata.model_validate(writable["metadata"]), descriptor
        )
    assert connector.stats()["operations"]["started"] == 0
    assert connector.stats()["registrations"]["count"] == 0
    assert connector.stats()["peers"]["count"] == 0


@pytest.mark.timeout(120)
def test_killed_again_and_again_in_the_middle_of_new_regions(connector, start_peer, content):
    """Whenever it dies, its successor of the same name is reached."""
    for turn in range(10):
        peer = start_peer(name="again and again")
        sizes = [1000 + 64 * i for i in range(20)]
        made = [
            peer.do("passive", kind="readable", sizes=[size], seed=turn + i)
            for i, size in enumerate(sizes)
        ]
        killer = threading.Timer(0.001 * turn, peer.process.kill)
        for i, (item, size) in enumerate(zip(made, sizes, strict=True)):
            array = np.zeros(size, np.uint8)
            try:
                read = connector.begin_read_blocking(
                    nc.RdmaMetadata.model_validate(item["metadata"]), nc.Descriptor(array)
                )
                read.wait_for_completion_blocking(10)
            except (nc.PeerLostError, nc.TransferError):
                assert i > 0  # it was alive
            else:
                assert (array == content(turn + i, size)).all()
            if i == 0:
                killer.start()
        killer.join()


def test_two_living_agents_of_one_name(connector, start_peer, content):
    """A mistake of whoever named them; but both are read right, and nothing grows."""
    twins = [start_peer("twin"), start_peer("twin")]
    descriptors = []
    for rounds in range(24):
        peer = twins[rounds % 2]
        made = peer.do("passive", kind="readable", sizes=[64], seed=rounds)
        told = nc.RdmaMetadata.model_validate(made["metadata"])
        array = np.zeros(64, np.uint8)
        with connector.begin_read_blocking(told, nc.Descriptor(array)) as operation:
            operation.wait_for_completion_blocking(10)
        assert (array == content(rounds, 64)).all()
        peer.do("wait", number=made["id"])
        descriptors.append([open_files(), *(open_files(twin.process.pid) for twin in twins)])
    assert descriptors[-1] == descriptors[5], descriptors
    figures = connector.stats()["peers"]
    assert (figures["count"], figures["connections"], figures["reloads"]) == (1, 2, 1)


def test_connections_beside_each_other_are_few(connector, peer, content, monkeypatch):
    """However often a peer's memory gets other keys, as that of network devices does."""
    made = peer.do("passive", kind="readable", sizes=[64], seed=1)
    read(connector, told(made), 64)
    peers = connector._open()._engine.peers
    for rounds in range(12):
        # Nothing agrees with what was loaded before.
        for known in peers.known():
            known.ledger._tables.clear()
            known.loaded.clear()
            known.everywhere.clear()
            known.ledger.note([envelope.Section("UCX", 0, [(0, 2**64 - 1, 0, b"another key")])])
        assert (read(connector, told(made), 64) == content(1, 64)).all()
        figures = connector.stats()["peers"]
        assert figures["reloads"] == rounds + 1
        kept = [known for known in peers.known() if not known.broken]
        assert len(kept) == min(rounds + 2, 5)


def test_what_hides_in_the_list_of_a_peer_is_found(connector, peer, content, keys_name_memory):
    """NIXL looks no further than at the neighbours of a region; no connection is made for that."""
    size = 1 << 16
    made = peer.do("passive", kind="readable", sizes=[size], seed=3)
    whole = told(made)
    start = whole.descriptors[0].ptr
    ((section,),) = (envelope.parse(decode_nixl_metadata(whole.nixl_metadata, 1 << 20)).sections,)
    key = section.regions[0][3]

    def naming(regions, rows):
        """Return metadata that names these regions, and descriptors within them."""
        blob = decode_nixl_metadata(whole.nixl_metadata, 1 << 20)
        head = blob[: envelope.parse(blob).sections_at]
        named = [(start + at, length, 0, key) for at, length in regions]
        blob = envelope.write(head, [envelope.Section("UCX", 0, named)])
        fields = whole.model_dump() | {
            "nixl_metadata": "b64:" + base64.b64encode(zlib.compress(blob)).decode(),
            "descriptors": [{"device": "cpu", "ptr": start + at, "size": n} for at, n in rows],
            "notification_key": "again",
        }
        return nc.RdmaMetadata.model_validate(fields)

    def moved(regions, rows):
        arrays = [np.zeros(length, np.uint8) for _, length in rows]
        operation = connector.begin_read_blocking(
            naming(regions, rows), [nc.Descriptor(array) for array in arrays]
        )
        operation.wait_for_completion_blocking(10)
        for (at, length), array in zip(rows, arrays, strict=True):
            assert (array == content(3, size)[at : at + length]).all()

    moved([(4096, 100)], [(4096, 100)])
    moved([(0, size)], [(0, size)])
    moved([(0, size)], [(8192, 100), (16_384, 100)])
    moved([(0, size), (8200, 50)], [(8300, 10), (0, size), (4, 8)])
    moved([(8200, 50), (0, size)], [(9000 + 64 * i, 64) for i in (5, 3, 9, 1)])
    assert counted(connector) == {"count": 1, "reloads": 0, "evictions": 0}


def test_memory_that_the_metadata_does_not_name(connector, peer):
    """Even where a key would do for it, and though other metadata has named it."""
    kept = [peer.do("passive", kind="readable", sizes=[64]) for _ in range(2)]
    for made in kept:
        read(connector, told(made), 64)
    fields = told(kept[0]).model_dump() | {"descriptors": told(kept[1]).model_dump()["descriptors"]}
    with pytest.raises(nc.MetadataError, match="did not register"):
        read(connector, nc.RdmaMetadata.model_validate(fields), 64)
    item = told(kept[0]).descriptors[0]
    for ptr, size in ((item.ptr - 1, 64), (item.ptr + 1, 64), (item.ptr, 65)):
        fields["descriptors"] = [{"device": "cpu", "ptr": ptr, "size": size}]
        with pytest.raises(nc.MetadataError, match="did not register"):
            read(connector, nc.RdmaMetadata.model_validate(fields), size)


def test_a_quiet_connection_is_looked_at_before_it_is_used(connector, peer, monkeypatch):
    """It may have broken meanwhile; one that is in use is not asked."""
    peers = connector._open()._engine.peers
    made = [peer.do("passive", kind="readable", sizes=[64]) for _ in range(3)]
    read(connector, told(made[0]), 64)
    asked = []
    monkeypatch.setattr(peers, "stands", lambda known: asked.append(known) or False)
    (known,) = peers.known()
    known.last_used += 3600
    read(connector, told(made[1]), 64)
    assert not asked
    known.last_used -= 7200
    read(connector, told(made[2]), 64)
    assert asked == [known]
    assert connector.stats()["peers"]["reloads"] == 1

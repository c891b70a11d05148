"""Peers that register again, restart, or appear under a name that is known."""

import base64
import threading
import zlib

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect._native import envelope
from nixl_connect.metadata import decode_nixl_metadata


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


def test_a_known_peer_is_not_loaded_again(connector, peer):
    for _ in range(3):
        made = peer.do("passive", kind="readable", sizes=[64])
        read(connector, nc.RdmaMetadata.model_validate(made["metadata"]), 64)
    assert connector.stats()["peers"] == {"count": 1, "reloads": 0, "evictions": 0}


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
        assert connector.stats()["peers"] == {"count": 2, "reloads": rounds, "evictions": 0}
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


def test_a_ledger_at_its_limit_starts_anew(make_connector, peer):
    connector = make_connector(max_peer_regions=3)
    kept = [peer.do("passive", kind="readable", sizes=[64]) for _ in range(8)]
    for made in kept:
        read(connector, nc.RdmaMetadata.model_validate(made["metadata"]), 64)
    assert connector.stats()["peers"]["reloads"] >= 2


def test_a_reconnection_that_is_not_to_be_had_leaves_the_peer_as_it_was(
    make_connector, peer, monkeypatch
):
    """As where a transfer to it does not end: what is known of it goes on."""
    connector = make_connector(max_peer_regions=1)
    one = peer.do("passive", kind="readable", sizes=[64])
    other = peer.do("passive", kind="readable", sizes=[64])
    told = [nc.RdmaMetadata.model_validate(made["metadata"]) for made in (one, other)]
    again = nc.RdmaMetadata.model_validate(one["metadata"] | {"notification_key": "again"})
    read(connector, told[0], 64)

    def late(*_):
        raise nc.TransferTimeoutError("a transfer to it did not end")

    with monkeypatch.context() as patch:
        patch.setattr(connector._open()._engine.peers, "_disconnect", late)
        with pytest.raises(nc.TransferTimeoutError):
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

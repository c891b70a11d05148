"""What is known of one connection to a remote agent."""

import pytest

from nixl_connect._native.envelope import Envelope, Section
from nixl_connect.peers.ledger import Verdict
from nixl_connect.peers.peer import Peer

SECTION = Section("UCX", 0, [(4096, 64, 0, b"key")])


def envelope(sections=(SECTION,), **connections):
    return Envelope("peer", connections, list(sections), 0)


@pytest.fixture
def peer():
    peer = Peer(b"alias", b"\0" * 16, "peer")
    peer.note(envelope(UCX=b"at"), [SECTION])
    return peer


def test_what_is_loaded(peer):
    assert peer.compare(envelope(UCX=b"at"), 10) == (Verdict.KNOWN, [])
    assert peer.has_loaded(envelope(UCX=b"at"))


def test_another_region_is_to_be_loaded(peer):
    other = Section("UCX", 0, [(1 << 20, 64, 0, b"key")])
    verdict, missing = peer.compare(envelope([other], UCX=b"at"), 10)
    assert verdict is Verdict.NEW
    assert [section.backend for section in missing] == ["UCX"]
    assert not peer.has_loaded(envelope([other], UCX=b"at"))


def test_another_backend_is_to_be_loaded(peer):
    """Though each region is known."""
    told = envelope(UCX=b"at", OTHER=b"elsewhere")
    assert peer.compare(told, 10)[0] is Verdict.NEW
    assert not peer.has_loaded(told)


def test_another_address_is_a_conflict(peer):
    assert peer.compare(envelope(UCX=b"there"), 10) == (Verdict.CONFLICT, [])
    assert not peer.has_loaded(envelope(UCX=b"there"))


def test_one_that_is_broken_is_a_conflict(peer):
    peer.broken = True
    assert peer.compare(envelope(UCX=b"at"), 10) == (Verdict.CONFLICT, [])

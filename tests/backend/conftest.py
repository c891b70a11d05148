"""Peers that can be forked."""

import pytest
from processes import HERE, Peer


@pytest.fixture
def start(start_peer):
    """Start peers that fork, and become other programs."""
    peers = []

    def start(**environment):
        peer = Peer(environment, program=HERE / "forking.py")
        peers.append(peer)
        peer.do("connect")
        return peer

    yield start
    for peer in peers:
        peer.end()

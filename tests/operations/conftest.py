"""A peer that hangs when it is told to."""

import numpy as np
import pytest
from pairs import read


@pytest.fixture
def hung(start_peer):
    """Return a function that connects to a peer over TCP, and stops it.

    It returns the peer and what that has made to be read: 1 MiB, which it does not serve.
    """

    def connect(connector):
        peer = start_peer(environment={"UCX_TLS": "tcp"})
        made = peer.do("passive", kind="readable", sizes=[1 << 20])
        warm = peer.do("passive", kind="readable", sizes=[8])
        read(connector, warm["metadata"], np.zeros(8, np.uint8)).wait_for_completion_blocking(10)
        peer.stop()
        return peer, made

    return connect

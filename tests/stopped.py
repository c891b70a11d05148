"""A prepared read from a peer that is stopped, over TCP. Run by test_prepared.py."""

import numpy as np
from conftest import Peer, PeerError

import nixl_connect as nc

SIZE = 8 << 20

peer = Peer({})
try:
    peer.do("connect")
    made = peer.do("passive", kind="readable", sizes=[SIZE])
    array = np.zeros(SIZE, np.uint8)
    with nc.Connector(drain=0.5) as connector:
        told = nc.RdmaMetadata.model_validate(made["metadata"])
        read = connector.prepare_read_blocking(told, nc.Descriptor(array))
        read.transfer_blocking(20)
        peer.stop()
        try:
            read.transfer_blocking(0.3)
        except nc.TransferTimeoutError:
            print("late")
        assert read.closed
        peer.resume()
        try:
            peer.do("wait", number=made["id"], timeout=20, deadline=30)
        except PeerError as error:
            if "peer reports that its transfer failed" in str(error):
                print("peer told")
finally:
    peer.end()

"""Prepared reads from a peer that is stopped, over TCP. Run by test_prepared.py."""

import signal
import sys
import threading
import time

import numpy as np
from processes import Peer, PeerError

import nixl_connect as nc

SIZE = 8 << 20


def prepare(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[SIZE])
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    read = connector.prepare_read_blocking(told, nc.Descriptor(np.zeros(SIZE, np.uint8)))
    read.transfer_blocking(20)
    return made["id"], read


def drained(connector):
    """Whether nothing is in flight, held or counted any more."""
    stats = connector.stats()
    counts = [peer.in_flight for peer in connector._open()._engine.peers.by_name.values()]
    return not stats["operations"]["active"] and not stats["operations"]["held"] and not any(counts)


def late(connector, peer):
    """It fails in time, and is held and counted until it has been drained."""
    number, read = prepare(connector, peer)
    peer.stop()
    try:
        read.transfer_blocking(0.3)
    except nc.TransferTimeoutError:
        print("late")
    finish(connector, peer, number, read, "peer reports that its transfer failed", "errored")


def interrupted(connector, peer):
    """A signal is seen at once, and what is in flight is not forgotten."""
    number, read = prepare(connector, peer)
    peer.stop()

    def handler(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.monotonic()
    try:
        read.transfer_blocking(30)
    except KeyboardInterrupt:
        if time.monotonic() - began < 5:
            print("late")
    finish(connector, peer, number, read, "cancelled by the peer", "cancelled")


def finish(connector, peer, number, read, text, result):
    read.close()
    assert read.closed
    (report,) = connector.operations()
    assert (report.kind, report.phase) == ("repeated", "draining")
    assert connector.stats()["ended"]["repeated"][result] == 1
    assert not drained(connector)
    assert connector.stats()["operations"]["held_bytes"] == SIZE
    peer.resume()
    try:
        peer.do("wait", number=number, timeout=20, deadline=30)
    except PeerError as error:
        if text in str(error):
            print("peer told")
    end = time.monotonic() + 10
    while not drained(connector):
        assert time.monotonic() < end
        time.sleep(0.01)


def closing(connector, peer):
    """Many that do not end are waited for together."""
    reads = [prepare(connector, peer)[1] for _ in range(6)]
    peer.stop()
    errors = []

    def work(read):
        try:
            read.transfer_blocking(30)
        except nc.OperationCancelledError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(read,)) for read in reads]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert {report.phase for report in connector.operations()} == {"in flight"}
    began = time.monotonic()
    connector.close_blocking()
    if time.monotonic() - began < 3:
        print("late")
    for thread in threads:
        thread.join(5)
    peer.resume()
    if len(errors) == len(reads):
        print("peer told")


peer = Peer({})
try:
    peer.do("connect")
    with nc.Connector(drain=0.5) as connector:
        globals()[sys.argv[1]](connector, peer)
finally:
    peer.end()

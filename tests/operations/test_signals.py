"""Signal handlers and finalizers that run in the middle of anything, and raise or close."""

import gc
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from dropped import Memory
from processes import run_python, until

import nixl_connect as nc

HERE = Path(__file__).parents[1]


def test_exceptions_of_a_handler_leave_nothing_locked_and_nothing_held():
    """Thousands of them, at random moments of beginnings, waits and ends."""
    run = run_python(str(HERE / "interrupted.py"), "8")
    told = re.search(r"interrupts=(\d+)", run.stdout)  # among what UCX logs there
    assert told is not None
    assert int(told[1]) > 500


@pytest.mark.parametrize(
    ("points", "work", "step"),
    [
        ("lines", "register", "5"),
        ("lines", "transfer", "11"),
        ("lines", "prepare", "13"),
        ("lines", "meet", "97"),
        ("lines", "share", "211"),
        ("opcodes", "register", "23"),
        ("opcodes", "transfer", "83"),
        ("objects", "register", "1"),
        ("objects", "transfer", "1"),
        ("objects", "prepare", "1"),
    ],
)
def test_a_handler_or_finalizer_that_uses_the_connector(points, work, step):
    """At so many points of its own code; it is served or refused, and nobody else notices."""
    run = run_python(str(HERE / "reentered.py"), points, work, step)
    told = re.search(r"points=(\d+).* served=(\d+)", run.stdout)
    assert told is not None
    assert int(told[1]) > 5  # a registration makes some ten objects
    assert int(told[2]) > 20


def test_a_handler_is_told_that_it_has_interrupted_a_change(make_connector, monkeypatch):
    """Of what its own thread has to end; what has nothing to do with that is served."""
    owner, mover = make_connector(quarantine=0), make_connector(quarantine=0)
    peers = mover._open()._engine.peers
    load = peers._load
    offered = [owner.create_readable_blocking(nc.Descriptor(b"some bytes")) for _ in range(3)]
    told = [operation.metadata() for operation in offered]
    refused = []

    def interrupted(*arguments, **options):
        load(*arguments, **options)
        with pytest.raises(nc.StateError, match="interrupted its thread while that connects"):
            mover.begin_read_blocking(told[1], nc.Descriptor(bytearray(10)))
        refused.append(True)
        mover.create_readable_blocking(nc.Descriptor(b"other bytes")).cancel()

    monkeypatch.setattr(peers, "_load", interrupted)
    for metadata in (told[0], told[2]):
        read = mover.begin_read_blocking(metadata, nc.Descriptor(bytearray(10)))
        read.wait_for_completion_blocking(10)
    assert refused == [True]


def make_forever(connector):
    while True:
        connector.create_readable_blocking(nc.Descriptor(bytearray(8)))


def test_a_handler_that_closes_while_the_connector_opens():
    connector = nc.Connector()
    closed = []

    def handler(*_):
        connector.close_blocking()
        closed.append(True)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with pytest.raises(nc.ClosedError):
            make_forever(connector)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert closed == [True]


def test_a_finalizer_that_closes_its_connector_while_another_thread_does(make_connector):
    connector = make_connector(quarantine=0)
    engine = connector._open()._engine
    inside = threading.Event()

    class Service:
        def __init__(self):
            self.me = self

        def __del__(self):
            connector.close_blocking()

    def dropped():
        """In the middle of letting go."""
        inside.set()
        # The other thread waits for this one; unless the reaper has collected the operation.
        until(lambda: engine._shutting_down or engine._shut_down)
        time.sleep(0.05)
        gc.collect()

    operation = connector.create_readable_blocking(nc.Descriptor(Memory(dropped)))

    def cancel(operations):
        operations.pop().cancel()

    worker = threading.Thread(target=cancel, args=([operation],))
    del operation
    gc.disable()
    try:
        Service()
        worker.start()
        assert inside.wait(10)
        closer = threading.Thread(target=connector.close_blocking)
        closer.start()
        closer.join(10)
        worker.join(10)
        assert not closer.is_alive()
        assert not worker.is_alive()
    finally:
        gc.enable()
    assert engine._shut_down

"""Signal handlers and finalizers that run in the middle of anything, and raise or close."""

import gc
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from processes import run_python, until

import nixl_connect as nc
import nixl_connect.keeper
from nixl_connect._native.lock import Gate, NotQuickError
from nixl_connect.permit import PATIENT

HERE = Path(__file__).parent


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
    assert int(told[1]) > 50
    assert int(told[2]) > 20


def test_a_handler_is_told_that_it_has_interrupted_a_change(make_connector, monkeypatch):
    connector = make_connector(quarantine=0)
    registrations = connector._open()._engine.registrations
    make = registrations._make
    refused = []

    def interrupted(*arguments, **options):
        make(*arguments, **options)
        for call in (
            lambda: connector.create_readable_blocking(nc.Descriptor(b"other bytes")),
            lambda: nc.Descriptor(b"other bytes").register_memory(connector),
        ):
            with pytest.raises(nc.StateError, match="interrupted its thread while that changes"):
                call()
            refused.append(call)

    monkeypatch.setattr(registrations, "_make", interrupted)
    connector.create_readable_blocking(nc.Descriptor(b"some bytes")).cancel()
    assert len(refused) == 2
    assert len(registrations) == 0


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


def test_a_finalizer_that_closes_its_connector_while_another_thread_does(
    make_connector, monkeypatch
):
    connector = make_connector(quarantine=0)
    engine = connector._open()._engine
    end = engine.keeper.end
    inside = threading.Event()

    class Service:
        def __init__(self):
            self.me = self

        def __del__(self):
            connector.close_blocking()

    def collected(*arguments):
        if threading.current_thread() is worker:
            inside.set()
            until(lambda: engine._shutting_down)
            time.sleep(0.05)  # the other thread waits for this one
            gc.collect()
        end(*arguments)

    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
    worker = threading.Thread(target=operation.cancel)
    monkeypatch.setattr(engine.keeper, "end", collected)
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


def test_gates():
    gate = Gate()
    with gate, gate:
        assert gate.is_held_here
        assert not gate.is_busy
    assert not gate.is_held_here
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with gate:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    assert gate.is_busy
    assert not gate.is_held_here
    for seconds in (0, 0.01):
        with pytest.raises(NotQuickError), gate.within(seconds):
            pytest.fail("it was entered")
        assert gate.is_late
    leave.set()
    with gate.within(10):
        assert not gate.is_late
    thread.join()
    assert not gate.is_busy


def test_a_beginning_that_has_to_let_go_has_a_deadline(make_connector):
    connector = make_connector(quarantine=0)
    keeper = connector._open()._engine.keeper
    descriptor = nc.Descriptor(bytearray(8))
    offered = connector.create_readable_blocking(descriptor)
    metadata = offered.metadata()
    many = [
        connector.create_readable_blocking(descriptor)
        for _ in range(nixl_connect.keeper._MUCH + 50)
    ]
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with keeper._collecting:
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert entered.wait(10)
        for operation in many:
            operation.cancel()
        began = time.monotonic()
        with pytest.raises(nc.TransferTimeoutError, match="let go"):
            connector.begin_read_blocking(metadata, nc.Descriptor(bytearray(8)), timeout=0.3)
        assert time.monotonic() - began < 10
    finally:
        leave.set()
        thread.join()
    offered.cancel()


def test_what_is_found_during_a_turn_is_left_to_the_reaper(make_connector, monkeypatch):
    """A beginning lets go of some, and of no more: what others find meanwhile is not forgotten."""
    connector = make_connector(quarantine=0)
    keeper = connector._open()._engine.keeper
    reactor, let_go = keeper._reactor, keeper._let_go
    monkeypatch.setattr(nixl_connect.keeper, "_MUCH", 3)
    monkeypatch.setattr(nixl_connect.keeper, "_GRACE", 60)  # the reaper comes when it is needed
    descriptor = nc.Descriptor(bytearray(8))
    last = connector.create_readable_blocking(descriptor)
    many = [connector.create_readable_blocking(descriptor) for _ in range(5)]
    poked = []

    class Noted:
        def poke(self):
            poked.append(threading.current_thread().name)
            reactor.poke()

        def __getattr__(self, name):
            return getattr(reactor, name)

    def during(memory, *, patient):
        finished = let_go(memory, patient=patient)
        other = threading.Thread(target=last.cancel, name="other")
        other.start()
        other.join()
        return finished

    with keeper._collecting:
        canceller = threading.Thread(target=lambda: [item.cancel() for item in many])
        canceller.start()
        canceller.join()
    monkeypatch.setattr(keeper, "_reactor", Noted())
    monkeypatch.setattr(keeper, "_let_go", during)
    keeper.keep_up(PATIENT)
    assert len(keeper.ended) == 1
    assert poked == ["other", threading.current_thread().name]
    monkeypatch.undo()
    keeper.collect()
    assert not keeper.holds

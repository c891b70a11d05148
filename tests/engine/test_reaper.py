"""Threads that others rely on: what is raised there, by whomever, ends none of them."""

import asyncio
import ctypes
import gc
import logging
import threading
import time
import weakref

import numpy as np
import pytest
from holding import held
from processes import DEADLINE, until

import nixl_connect as nc
import nixl_connect.engine.engine
from nixl_connect import monitor
from nixl_connect._native.lock import persist
from nixl_connect.engine.offload import Beginnings


class InterruptError(BaseException):
    """What is raised."""


def interrupt(thread):
    """Have the interpreter raise something in another thread, or in this one."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(InterruptError)
    )


def keeper(connector):
    return connector._open()._engine.keeper


def dropped(connector):
    """Drop an operation, and return a weak reference to its memory."""
    memory = np.zeros(100, np.uint8)
    operation = connector.create_readable_blocking(nc.Descriptor(memory))
    del operation
    return weakref.ref(memory)


def nothing_is_held(connector):
    return not any(held(connector).values())


@pytest.fixture
def only_the_reaper(monkeypatch):
    """Have nobody else collect."""
    monkeypatch.setattr(nixl_connect.engine.engine.Engine, "collect", lambda _: None)


@pytest.fixture
def raising_filter():
    """A filter of every logger of the package, which raises on reapers' threads."""
    raised = []

    def refuse(record):
        if threading.current_thread().name == "nixl-reaper":
            raised.append(record.name)
            raise InterruptError
        return True

    loggers = [
        logging.getLogger(name)
        for name in sorted(logging.root.manager.loggerDict)
        if name.startswith("nixl_connect")
    ]
    for logger in loggers:
        logger.addFilter(refuse)
    logging.getLogger("nixl_connect").setLevel(logging.DEBUG)
    yield raised
    logging.getLogger("nixl_connect").setLevel(logging.NOTSET)
    for logger in loggers:
        logger.removeFilter(refuse)


@pytest.mark.usefixtures("only_the_reaper")
def test_a_filter_of_logs_that_raises(make_connector, raising_filter):
    """At whatever the reaper logs. What it was to let go of it does."""
    connector = make_connector(quarantine=0)
    for _ in range(3):
        memory = [dropped(connector) for _ in range(3)]
        until(lambda memory=memory: all(alive() is None for alive in memory))
    until(lambda: nothing_is_held(connector))
    assert {"nixl_connect.engine.keeper", "nixl_connect.peers.registrations"} <= set(raising_filter)
    assert keeper(connector)._reaper.is_alive()


@pytest.mark.usefixtures("only_the_reaper")
def test_exceptions_that_another_thread_raises(make_connector):
    connector = make_connector(quarantine=0)
    reaper = keeper(connector)._reaper
    for _ in range(20):
        memory = [dropped(connector) for _ in range(10)]
        for _ in range(5):
            interrupt(reaper)
            time.sleep(0)
        registered = nc.Descriptor(np.zeros(10))
        registered.register_memory(connector)
        del registered
    until(lambda: all(alive() is None for alive in memory) and nothing_is_held(connector))
    assert reaper.is_alive()
    connector.close_blocking()
    reaper.join(DEADLINE)
    assert not reaper.is_alive()


def test_exceptions_during_quarantine(make_connector):
    connector = make_connector(quarantine=0.3)
    memory = np.zeros(100, np.uint8)
    alive = weakref.ref(memory)
    operation = connector.create_readable_blocking(nc.Descriptor(memory))
    operation.metadata()
    reaper = keeper(connector)._reaper
    connector.close_blocking()
    del operation, memory
    interrupt(reaper)
    until(lambda: alive() is None)
    reaper.join(DEADLINE)
    assert not reaper.is_alive()


def test_a_finalizer_s_close_that_is_interrupted(make_connector, monkeypatch, caplog):
    connector = make_connector(quarantine=0)
    engine = connector._open()._engine
    close, calls = engine.keeper._close, []

    def interrupted():
        calls.append(None)
        if len(calls) < 3:
            raise InterruptError
        close()

    monkeypatch.setattr(engine.keeper, "_close", interrupted)
    engine.keeper.request_close()
    until(lambda: engine._shut_down)
    engine.keeper._reaper.join(DEADLINE)
    assert not engine.keeper._reaper.is_alive()
    told = [
        record.message for record in caplog.records if record.name == "nixl_connect.engine.keeper"
    ]
    assert told == ["letting go was interrupted, and is tried again: InterruptError()"] * 2


def test_persisting_takes_its_time():
    """Whoever raises again and again does not have a processor for it."""
    left, told = [None] * 3, []

    def work():
        if left:
            left.pop()
            raise InterruptError

    def report(error):
        told.append(type(error))
        raise InterruptError

    began = time.monotonic()
    persist(work, report)
    assert told == [InterruptError] * 3
    assert time.monotonic() - began >= 3 * 0.05


def test_beginnings_after_one_that_is_interrupted():
    beginnings = Beginnings()

    def refuse(permit):
        permit.need_patience()
        interrupt(threading.current_thread())
        return "begun"

    def begin(permit):
        permit.need_patience()
        return "begun"

    async def main():
        for _ in range(20):
            with pytest.raises((nc.TransferTimeoutError, InterruptError)):
                await beginnings.begin(refuse, "peer", 0.05)
            assert await beginnings.begin(begin, "peer", DEADLINE) == "begun"

    asyncio.run(main())


def test_a_monitor_that_fails_goes_on(tmp_path, monkeypatch):
    answers = []

    def snapshot():
        answers.append(None)
        if len(answers) == 1:
            raise InterruptError
        return {}

    folder = tmp_path / "monitor"
    monkeypatch.setattr(monitor, "snapshot", snapshot)
    with monitor.serve(folder) as serving:

        def ask():
            with monitor.socket.socket(monitor.socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(str(serving.path))
                return client.recv(100)

        assert ask() == b""
        assert ask() == b"{}\n"
    gc.collect()


def test_what_is_kept_is_counted_before_and_after_closing():
    connector = nc.Connector(quarantine=1)
    offers = [connector.create_readable_blocking(nc.Descriptor(bytes(size))) for size in (100, 23)]
    counted = keeper(connector)
    assert counted.kept == (2, 123)
    offers[0].metadata()
    connector.close_blocking()
    assert counted.kept == (1, 100)  # which somebody may know
    until(lambda: counted.kept == (0, 0))

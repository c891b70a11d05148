"""Does transfers while a timer's signal handler raises at random moments. See test_signals.py."""

import contextlib
import faulthandler
import gc
import random
import signal
import sys
import time

import nixl_connect as nc


class InterruptError(Exception):
    """What the handler raises."""


def interrupt(*_):
    raise InterruptError


def locked(engines):
    """Names of the locks that somebody has, between two operations."""
    return {
        name
        for engine in engines
        for name, held in {
            "registrations": engine.registry.is_busy,
            "peers": engine.peers.is_held_here,
            "closing": engine._close_lock._is_owned(),
        }.items()
        if held
    }


def main():
    faulthandler.dump_traceback_later(float(sys.argv[1]) + 60, exit=True)
    owner, mover = nc.Connector(quarantine=0), nc.Connector(quarantine=0)
    engines = [connector._open()._engine for connector in (owner, mover)]
    source, target = nc.Descriptor(bytearray(64)), nc.Descriptor(bytearray(64))
    signal.signal(signal.SIGALRM, interrupt)
    moments = random.Random(3)
    interrupts = 0
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(20e-6, 1500e-6))
            while True:
                readable = owner.create_readable_blocking(source)
                read = mover.begin_read_blocking(readable.metadata(), target)
                read.wait_for_completion_blocking(5)
                readable.wait_for_completion_blocking(5)
        except InterruptError:
            interrupts += 1
        with contextlib.suppress(InterruptError):
            signal.setitimer(signal.ITIMER_REAL, 0)
        # The engines' own threads take the first of them now and then, and let go.
        patience = time.monotonic() + 5
        while (held := locked(engines)) and time.monotonic() < patience:
            time.sleep(0.001)
        if held:
            sys.exit(f"after {interrupts} interrupts locks stay taken: {held}")
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    readable = read = None
    gc.collect()
    deadline = time.monotonic() + 20
    while any(engine.keeper.kept[0] or len(engine.registry) for engine in engines):
        if time.monotonic() > deadline:
            left = [(engine.keeper.kept[0], len(engine.registry)) for engine in engines]
            sys.exit(f"after {interrupts} interrupts operations and registrations are left: {left}")
        time.sleep(0.01)
    peers = engines[1].peers
    transfers = [peer.in_flight for peer in (*peers.by_name.values(), *peers._given_up)]
    if any(transfers):
        sys.exit(f"after {interrupts} interrupts peers count transfers: {transfers}")
    print(f"interrupts={interrupts}", flush=True)
    owner.close_blocking()
    mover.close_blocking()


main()

"""Operations that the connector keeps, and warnings of those that are lost."""

import asyncio
import gc
import logging
import threading
import weakref

import numpy as np
import pytest
from processes import DEADLINE, run_python, until

import nixl_connect as nc


def offer(connector, source, **options):
    return connector.create_readable_blocking(nc.Descriptor(source), **options)


def read(mover, metadata, size):
    target = np.zeros(size, np.uint8)
    with mover.begin_read_blocking(metadata, nc.Descriptor(target)) as operation:
        operation.wait_for_completion_blocking(DEADLINE)
    return target


def test_kept_without_a_loop(make_connector, content):
    owner, mover, source = make_connector(), make_connector(), content(1, 100)
    ended = []
    operation = offer(owner, source)
    operation.keep(lambda it: ended.append((it.status.name, threading.current_thread().name)))
    metadata, gone = operation.metadata(), weakref.ref(operation)
    del operation
    gc.collect()
    assert (read(mover, metadata, 100) == source).all()
    until(lambda: ended == [("COMPLETE", "nixl-reaper")])
    until(lambda: gone() is None)


def test_kept_on_a_loop(make_connector, content):
    owner, mover, source = make_connector(), make_connector(), content(2, 100)

    async def main():
        ended = asyncio.get_running_loop().create_future()

        def on_end(operation):
            ended.set_result((operation.status.name, asyncio.get_running_loop()))

        operation = await owner.create_readable(nc.Descriptor(source))
        operation.keep(on_end)
        metadata = operation.metadata()
        del operation
        gc.collect()
        await asyncio.to_thread(read, mover, metadata, 100)
        status, loop = await asyncio.wait_for(ended, DEADLINE)
        assert (status, loop) == ("COMPLETE", asyncio.get_running_loop())

    asyncio.run(main())


def test_many_are_kept(make_connector):
    owner, mover = make_connector(), make_connector()
    ended = []

    async def main():
        offered = []
        for i in range(200):
            operation = await owner.create_readable(nc.Descriptor(bytes([i % 251]) * 64))
            operation.keep(ended.append)
            offered.append(operation.metadata())
            del operation
        for i, metadata in enumerate(offered):
            target = bytearray(64)
            moved = await mover.begin_read(metadata, nc.Descriptor(target))
            await moved.wait_for_completion(DEADLINE)
            assert target == bytes([i % 251]) * 64
        end = asyncio.get_running_loop().time() + DEADLINE
        while len(ended) < 200:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.01)

    asyncio.run(main())
    ended.clear()


def test_loops_that_are_closed_leave_nothing(connector):
    """Neither descriptors nor waits, however many there are."""

    async def main():
        operation = await connector.create_readable(nc.Descriptor(bytearray(8)), transfers=2)
        operation.keep()
        return operation

    kept = [asyncio.run(main()) for _ in range(3)]
    for operation in kept:
        operation.cancel()
    until(lambda: connector.stats()["operations"]["held"] == 0)


def test_whose_loop_is_closed(make_connector, content):
    owner, mover, source = make_connector(), make_connector(), content(3, 100)
    ended = []

    async def main():
        operation = await owner.create_readable(nc.Descriptor(source))
        operation.keep(lambda it: ended.append(threading.current_thread().name))
        return operation.metadata()

    metadata = asyncio.run(main())
    read(mover, metadata, 100)
    until(lambda: ended == ["nixl-reaper"])


def test_that_has_ended(connector):
    ended = []
    operation = offer(connector, bytearray(8))
    operation.cancel()
    operation.keep(lambda it: ended.append(it.status.name))
    until(lambda: ended == ["CANCELLED"])

    async def main():
        other = await connector.create_readable(nc.Descriptor(bytearray(8)), transfers=2)
        other.finish()
        other.keep(lambda it: ended.append(it.status.name))
        assert len(ended) == 1
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ended == ["CANCELLED", "COMPLETE"]


def test_cancelled(connector):
    ended = []
    operation = offer(connector, bytearray(8))
    operation.keep(lambda it: ended.append(it.status.name))
    operation.cancel()
    until(lambda: ended == ["CANCELLED"])


def test_kept_twice(connector):
    operation = offer(connector, bytearray(8))
    operation.keep()
    with pytest.raises(nc.StateError, match="kept already"):
        operation.keep()
    operation.cancel()


def test_not_callable(connector):
    operation = offer(connector, bytearray(8))
    with pytest.raises(nc.ArgumentTypeError, match="on_end"):
        operation.keep(3)
    operation.cancel()


def test_closing_the_connector(make_connector):
    connector = make_connector()
    ended = []
    offer(connector, bytearray(8), transfers=None).keep(lambda it: ended.append(it.status.name))
    connector.close_blocking()
    until(lambda: ended == ["CANCELLED"])


def test_what_on_end_raises_is_logged(connector, caplog):
    def fail(operation):
        raise ValueError("as the program has it")

    operation = offer(connector, bytearray(8))
    operation.keep(fail)
    operation.cancel()
    until(lambda: "as the program has it" in caplog.text)
    # The reaper goes on.
    ended = []
    other = offer(connector, bytearray(8))
    other.keep(ended.append)
    other.cancel()
    until(lambda: ended)
    ended.clear()
    caplog.clear()


def test_how_it_ended_is_logged(connector, caplog):
    caplog.set_level(logging.DEBUG)
    operation = offer(connector, bytearray(8), timeout=0.05)
    operation.keep()
    until(lambda: "did not end before its deadline" in caplog.text)
    (record,) = [it for it in caplog.records if "which was kept" in it.getMessage()]
    assert record.levelno == logging.WARNING
    caplog.clear()


LOSES = """
import gc, sys
from nixl_connect import Connector, Descriptor
connector = Connector(quarantine=0.0)
def offer():
    return connector.create_readable_blocking(Descriptor(bytearray(8)))  # line 5
DROP
gc.collect()
connector.close_blocking()
"""


@pytest.mark.parametrize("option", [["-X", "dev"], ["-X", "tracemalloc", "-W", "default"]])
@pytest.mark.parametrize(
    ("drop", "warns"),
    [
        ("offer().metadata()", True),
        ("offer()", False),
        ("offer().cancel()", False),
        ("it = offer(); it.metadata(); it.cancel(); del it", False),
        ("it = offer(); it.metadata(); it.keep(); del it", False),
        ("it = offer(); it.metadata(); it.__exit__(None, None, None); del it", False),
    ],
)
def test_what_is_lost_is_warned_of(option, drop, warns, tmp_path):
    program = tmp_path / "loses.py"
    program.write_text(LOSES.replace("DROP", drop).lstrip())
    ended = run_python(*option, str(program)).stderr
    assert ("ResourceWarning: ReadableOperation" in ended) == warns, ended
    assert (f"made at {program}:5," in ended) == warns, ended


def test_nothing_is_noted_otherwise(tmp_path):
    program = tmp_path / "loses.py"
    program.write_text(LOSES.replace("DROP", "offer().metadata()").lstrip())
    assert "ResourceWarning" not in run_python("-W", "default", str(program)).stderr

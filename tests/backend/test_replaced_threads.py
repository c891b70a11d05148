"""Libraries that put something else in the place of threads: refused, with a text, and no hang."""

import _thread
import importlib.util
import threading

import pytest
from processes import run_python

import nixl_connect as nc

OPEN = """
import faulthandler
faulthandler.dump_traceback_later(40, exit=True)
import asyncio
import nixl_connect as nc
def blocking():
    return nc.Connector().create_readable_blocking(nc.Descriptor(b"1234"))
def on_a_loop():
    async def main():
        await nc.Connector().create_readable(nc.Descriptor(b"1234"))
    asyncio.run(main())
def connection():
    nc.Connection(nc.Connector(), 1)
for call in (blocking, on_a_loop, connection):
    try:
        call()
    except nc.BackendError as error:
        print(error)
    else:
        print("opened")
"""
MOVE = """
import faulthandler
faulthandler.dump_traceback_later(40, exit=True)
import gevent
import nixl_connect as nc
source, target = bytes(range(200)), bytearray(200)
with nc.Connector() as one, nc.Connector() as other:
    with one.create_readable_blocking(nc.Descriptor(source)) as offered:
        read = other.begin_read_blocking(offered.metadata(), nc.Descriptor(target))
        read.wait_for_completion_blocking(20)
    seen = []
    gevent.joinall([gevent.spawn(seen.append, number) for number in range(5)], timeout=20)
print(source == target, seen)
"""


@pytest.fixture
def gevent():
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("needs gevent")


@pytest.mark.usefixtures("gevent")
@pytest.mark.parametrize("when", ["before", "after"])
def test_gevent_in_the_place_of_threads(when):
    """Whether it comes before this package is imported or after."""
    patch = "from gevent import monkey; monkey.patch_all()\n"
    code = (
        patch + OPEN if when == "before" else OPEN.replace("def blocking", f"{patch}def blocking")
    )
    told = run_python("-W", "ignore", "-c", code).stdout.splitlines()
    assert len(told) == 3
    for line in told:
        assert "replaced, by gevent.thread" in line
        assert "monkey.patch_all(thread=False)" in line


@pytest.mark.usefixtures("gevent")
def test_what_that_says_helps():
    patch = "from gevent import monkey; monkey.patch_all(thread=False)\n"
    told = run_python("-W", "ignore", "-c", patch + MOVE).stdout
    assert told == "True [0, 1, 2, 3, 4]\n"


@pytest.mark.parametrize("name", ["start_new_thread", "allocate_lock"])
def test_whoever_replaces_them(name, monkeypatch, make_connector):
    """Not by the name of a product: by what the interpreter itself has there."""

    def replacement(*_):
        raise AssertionError("called")

    connector = make_connector()
    with monkeypatch.context() as patched:
        patched.setattr(_thread, name, replacement)
        with pytest.raises(nc.BackendError, match=f"replaced, by {__name__}"):
            connector._open()
    connector._open()
    assert threading.active_count() > 1

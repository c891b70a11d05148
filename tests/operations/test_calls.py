"""How many calls of Python an operation makes: `sys.setprofile` sees functions and builtins.

Counts do not depend on the machine, and each is the least of several rounds, so that it does not
matter whether a wait found its operation ended or had to sleep. What Cython compiles is not seen;
`make instructions` counts that.
"""

import asyncio
import collections
import gc
import statistics
import sys

import pairs
import pytest

import nixl_connect as nc

# At most so many, on every version of Python: a few above what is counted now. A change that makes
# fewer lowers them.
CEILINGS = {
    "a pair, blocking": 21,
    "a pair of new memory": 21,
    "a pair, asyncio": 58,  # of Python 3.13; 47 of 3.11
    "a prepared post": 2,
    "1,000 descriptors": 226,
    "1,000 descriptors, made too": 226,
}
# What comes before all is warm is more, so it does not count either.
ROUNDS, LARGE_ROUNDS = 100, 6
SHOWN = 30
# What these files call by themselves is not of the package's making.
OWN = {__file__, pairs.__file__}


class Calls(collections.Counter):
    """Counts the calls that its thread makes within it, by name."""

    def __enter__(self):
        sys.setprofile(self._note)
        return self

    def __exit__(self, *exception):
        sys.setprofile(None)

    def _note(self, frame, event, argument):
        path = frame.f_code.co_filename
        if path in OWN or path.endswith(".pyx"):  # which a debug build shows
            return
        if event == "call":
            code = frame.f_code
            name = getattr(code, "co_qualname", code.co_name)
            self[f"{frame.f_globals.get('__name__')}.{name}"] += 1
        elif event == "c_call":
            self[getattr(argument, "__qualname__", repr(argument))] += 1


def check(name, rounds):
    """Fail if the round with the fewest calls has more than the ceiling allows; say which."""
    fewest, ceiling = min(rounds, key=Calls.total), CEILINGS[name]
    usual = statistics.median(map(Calls.total, rounds))
    said = f"{name}: {fewest.total()} calls, where {ceiling} are allowed; the median is {usual:.0f}"
    print(said)  # for who wants to lower a ceiling: pytest -s
    most = "".join(f"\n{count:6}  {called}" for called, count in fewest.most_common(SHOWN))
    assert fewest.total() <= ceiling, f"{said}. The most frequent:{most}"


@pytest.fixture(autouse=True)
def no_collection():
    """Keep the collector of garbage out: what it finalizes makes calls, at any time."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def connectors(make_connector):
    return make_connector(), make_connector()


def descriptors(buffers):
    return [nc.Descriptor(buffer) for buffer in buffers]


def test_a_pair(connectors):
    source, target = b"8 bytes.", bytearray(8)

    def one():
        with Calls() as calls:
            pairs.blocking(*connectors, nc.Descriptor(source), nc.Descriptor(target))
        assert target == source
        target[:] = bytes(8)
        pairs.settle(connectors)
        return calls

    check("a pair, blocking", [one() for _ in range(ROUNDS)])


def test_a_pair_of_new_memory(connectors):
    """Its text has not been seen before, but its key has: nobody looks at what is loaded."""
    kept = []

    def one():
        source, target = bytearray(b"8 bytes."), bytearray(8)
        kept.extend((source, target))  # or the next would be at the same address
        with Calls() as calls:
            pairs.blocking(*connectors, nc.Descriptor(source), nc.Descriptor(target))
        assert target == source
        pairs.settle(connectors)
        return calls

    check("a pair of new memory", [one() for _ in range(ROUNDS)])


def test_a_pair_within_asyncio(connectors):
    """All that the loop's thread does, asyncio's own part included."""
    source, target = b"8 bytes.", bytearray(8)

    async def one():
        with Calls() as calls:
            await pairs.within_asyncio(*connectors, nc.Descriptor(source), nc.Descriptor(target))
        assert target == source
        target[:] = bytes(8)
        pairs.settle(connectors)
        return calls

    async def all_rounds():
        return [await one() for _ in range(ROUNDS)]

    check("a pair, asyncio", asyncio.run(all_rounds()))


def test_a_prepared_post(connectors):
    owner, mover = connectors
    source, target = b"8 bytes.", bytearray(8)

    def one(read):
        with Calls() as calls:
            read.transfer_blocking()
        assert target == source
        target[:] = bytes(8)
        return calls

    with owner.create_readable_blocking(nc.Descriptor(source)) as readable:
        metadata = readable.metadata()
        with mover.prepare_read_blocking(metadata, nc.Descriptor(target)) as read:
            rounds = [one(read) for _ in range(ROUNDS)]
    check("a prepared post", rounds)


@pytest.mark.parametrize("made", [False, True])
def test_many_descriptors(connectors, made):
    sources = [index.to_bytes(2, "little") * 4 for index in range(1000)]
    targets = [bytearray(8) for _ in sources]
    given = None if made else (descriptors(sources), descriptors(targets))

    def one():
        with Calls() as calls:
            pairs.blocking(*connectors, *(given or (descriptors(sources), descriptors(targets))))
        assert targets == sources
        for target in targets:
            target[:] = bytes(8)
        pairs.settle(connectors)
        return calls

    name = "1,000 descriptors, made too" if made else "1,000 descriptors"
    check(name, [one() for _ in range(LARGE_ROUNDS)])

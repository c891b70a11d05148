"""The wire format of dynamo.nixl_connect: each side in a process and environment of its own."""

import hashlib
import itertools
import json
import os
import subprocess
from pathlib import Path

import pytest
from processes import Lines
from reference.side import content

HERE = Path(__file__).parents[1]

# The first may have to make the environment.
pytestmark = pytest.mark.timeout(1200)

OURS, THEIRS = "nixl_connect", "dynamo"
# Who owns memory, who moves it, and whether that is to read or to write.
PAIRINGS = [
    pytest.param(owner, mover, kind, id=f"{mover} {kind}s {owner}")
    for owner, mover in ((OURS, THEIRS), (THEIRS, OURS))
    for kind in ("read", "write")
]
MIB = 1 << 20
DEADLINE = 90


class Side(Lines):
    """A process that runs reference/side.py."""

    def answer(self, deadline=None):
        """Return the next answer's result."""
        reply = self.reply(deadline)
        if "error" in reply:
            raise AssertionError(reply["error"])
        return reply["result"]


@pytest.fixture(scope="module")
def start(pythons):
    """Return a function that starts a side."""
    started = []

    def side(name):
        # No progress of the reference's threads but for its own: they spin, one for each process.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        process = Side(
            [pythons[name], str(HERE / "reference" / "side.py"), name], environment, DEADLINE
        )
        started.append(process)
        return process

    yield side
    for process in started:
        process.end()


@pytest.fixture(scope="module")
def sides(start):
    """Both, for all tests: connections are kept, dropped, and made again."""
    return {name: start(name) for name in (OURS, THEIRS)}


def expected(seed, sizes):
    return [hashlib.sha256(content(seed + i, size)).hexdigest() for i, size in enumerate(sizes)]


def move(sides, owner, mover, kind, sizes, *, seed=1, times=1, hex_encode=False, keep=False):
    """Move bytes, `times` operations at once, and compare every one; each is told its end."""
    reads = kind == "read"
    made = sides[owner].do(
        "passive",
        kind="readable" if reads else "writable",
        sizes=sizes,
        seed=seed if reads else None,
        times=times,
        hex_encode=hex_encode,
    )
    encoded = json.loads(made[0]["metadata"])["nixl_metadata"]
    assert encoded.startswith("b64:") != hex_encode
    moved = sides[mover].do(
        "active",
        kind=kind,
        metadata=[item["metadata"] for item in made],
        sizes=sizes,
        seed=None if reads else seed,
        keep=keep,
    )
    finished = [sides[owner].do("finish", number=item["id"]) for item in made]
    wanted = [expected(seed + i, sizes) for i in range(times)]
    assert (moved if reads else finished) == wanted


@pytest.mark.parametrize(("owner", "mover", "kind"), PAIRINGS)
@pytest.mark.parametrize("size", [1, 7, 4096, MIB + 3, 256 * MIB])
def test_sizes(sides, owner, mover, kind, size):
    move(sides, owner, mover, kind, [size])


@pytest.mark.parametrize(("owner", "mover", "kind"), PAIRINGS)
@pytest.mark.parametrize("hex_encode", [False, True])
def test_many_descriptors(sides, owner, mover, kind, hex_encode):
    sizes = [1 + 37 * i for i in range(100)]
    move(sides, owner, mover, kind, sizes, hex_encode=hex_encode)


@pytest.mark.parametrize(("owner", "mover", "kind"), PAIRINGS)
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "dropped"])
def test_at_once_and_again(sides, owner, mover, kind, keep):
    """Fifty rounds, of which every fifth is of eight operations at once.

    The reference drops its connection whenever its last operation ends, unless something of the
    peer is kept.
    """
    for number in range(50):
        times = 8 if number % 5 == 0 else 1
        move(sides, owner, mover, kind, [1000 + number, 8], seed=number, times=times, keep=keep)


@pytest.mark.parametrize("mover", [OURS, THEIRS])
@pytest.mark.parametrize("kind", ["read", "write"])
def test_an_offer_to_many(sides, mover, kind):
    """Its key is of another form, which the reference returns as any other."""
    reads = kind == "read"
    (made,) = sides[OURS].do(
        "passive",
        kind="readable" if reads else "writable",
        sizes=[5000],
        seed=1 if reads else None,
        transfers=3,
    )
    for _ in range(3):
        moved = sides[mover].do(
            "active",
            kind=kind,
            metadata=[made["metadata"]],
            sizes=[5000],
            seed=None if reads else 1,
            keep=True,
        )
    finished = sides[OURS].do("finish", number=made["id"])
    assert (moved if reads else [finished]) == [expected(1, [5000])]


def test_both_ways_at_once(sides):
    """Each side owns and moves, while the other does."""
    made = {
        name: sides[name].do("passive", kind="readable", sizes=[5000], seed=i, times=20)
        for i, name in enumerate((OURS, THEIRS))
    }
    for name, other in itertools.permutations((OURS, THEIRS)):
        texts = [item["metadata"] for item in made[other]]
        sides[name].send("active", kind="read", metadata=texts, sizes=[5000])
    for i, name in ((1, OURS), (0, THEIRS)):
        assert sides[name].answer() == [expected(i + j, [5000]) for j in range(20)]
    for name in (OURS, THEIRS):
        for item in made[name]:
            sides[name].do("finish", number=item["id"])


def test_a_peer_that_was_started_anew(start):
    """Under another name, as both libraries name themselves; the one that goes on reads from it."""
    for stays, goes in itertools.permutations((OURS, THEIRS)):
        mover = start(stays)
        for _ in range(2):
            owner = start(goes)
            move({stays: mover, goes: owner}, goes, stays, "read", [10_000])
            owner.end()
        mover.end()


def test_the_environment_is_what_it_says(pythons):
    """So that no test passes on another version than it should."""
    text = (
        "from importlib.metadata import version\n"
        "print(version('ai-dynamo-runtime'), version('torch').split('+')[0])"
    )
    told = subprocess.run(
        [pythons[THEIRS], "-c", text], check=True, capture_output=True, text=True, timeout=60
    )
    assert told.stdout.split() == ["1.6.1", "2.13.0"]

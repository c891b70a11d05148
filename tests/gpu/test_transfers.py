"""From process to process, between memory of GPUs and of the host, every byte compared."""

import itertools

import pytest
from processes import PeerError

KINDS = ("device", "managed", "pooled", "cpu")
PAIRS = [pair for pair in itertools.product(KINDS, KINDS) if pair != ("cpu", "cpu")]
SIZES = (1, 7, 4096, 100_003, 16 << 20)
GIB = 1 << 30
LONG = 120  # seconds for what moves gibibytes


def expected(seed, size):
    from gpu_peer import expected

    return expected(seed, size)


def moved(direction, owner, mover, sizes, deadline=LONG):
    """Move bytes from owner to mover or back; return their digests at the target."""
    if direction == "read":
        passive = owner.do("passive", deadline, kind="readable", sizes=sizes, seed=1)
        active = mover.do(
            "active", deadline, kind="read", metadata=passive["metadata"], sizes=sizes
        )
        target, number = mover, active["id"]
    else:
        passive = owner.do("passive", deadline, kind="writable", sizes=sizes)
        active = mover.do(
            "active", deadline, kind="write", metadata=passive["metadata"], sizes=sizes, seed=1
        )
        target, number = owner, passive["id"]
    mover.do("wait", deadline, number=active["id"], timeout=deadline)
    owner.do("wait", deadline, number=passive["id"], timeout=deadline)
    digests = target.do("digests", deadline, number=number)["digests"]
    for side, operation in ((owner, passive), (mover, active)):
        side.do("drop", number=operation["id"])
    return digests


@pytest.mark.timeout(300)
@pytest.mark.parametrize("direction", ["read", "write"])
@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_kinds_of_memory(gpu, start_peer, direction, mine, theirs):
    owner, mover = start_peer(mine), start_peer(theirs)
    for size in SIZES:
        assert moved(direction, owner, mover, [size]) == [expected(1, size)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("direction", ["read", "write"])
def test_many_descriptors(gpu, start_peer, direction):
    sizes = [1 + 37 * i for i in range(200)]
    owner, mover = start_peer(), start_peer()
    assert moved(direction, owner, mover, sizes) == [
        expected(1 + i, size) for i, size in enumerate(sizes)
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("direction", ["read", "write"])
@pytest.mark.parametrize("size", [GIB, 8 * GIB])
def test_large(gpu, start_peer, direction, size):
    if gpu.free_bytes < 2 * size + GIB:
        pytest.skip(f"less than {2 * size} bytes free on {gpu.name}")
    assert moved(direction, start_peer(), start_peer(), [size]) == [expected(1, size)]


@pytest.mark.timeout(300)
def test_again_and_again(gpu, start_peer):
    """Nothing is kept of a device's memory."""
    owner, mover = start_peer(), start_peer()
    size = 16 << 20
    moved("read", owner, mover, [size])
    before = [side.do("free_bytes")["bytes"] for side in (owner, mover)]
    for _ in range(30):
        assert moved("read", owner, mover, [size]) == [expected(1, size)]
    for side, free in zip((owner, mover), before, strict=True):
        assert side.do("free_bytes")["bytes"] >= free - 2 * size


@pytest.mark.timeout(300)
def test_memory_of_host_and_device_in_one_operation(gpu, start_peer):
    peer = start_peer()
    with pytest.raises(PeerError, match="one kind") as caught:
        peer.do("mixed", size=100)
    assert caught.value.kind == "ArgumentError"


@pytest.mark.timeout(300)
def test_two_gpus(gpu, start_peer):
    from gpu_api import Gpu

    if Gpu.count() < 2:
        pytest.skip("one GPU")
    owner, mover = start_peer(), start_peer()
    mover.do("use", kind="device", number=1)
    assert moved("read", owner, mover, [1 << 20]) == [expected(1, 1 << 20)]
    assert moved("write", owner, mover, [1 << 20]) == [expected(1, 1 << 20)]

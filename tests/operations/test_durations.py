"""Seconds, wherever they are taken: any real number, however large, and nothing else."""

import asyncio
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect.checks import seconds

MIB = 1 << 20
LONG = (10**400, 10**6000, 1 << 64, 1e308, float("inf"), Fraction(10**400), np.float32("inf"))
SHORT = (20, 20.0, np.int64(20), np.uint8(20), np.float32(20), Fraction(41, 2))
NEGATIVE = (-1, -1e-9, -(10**400), -(10**6000), float("-inf"), float("nan"), Fraction(-1, 2))
NO_NUMBERS = (True, np.bool_(1), "20", "9" * 10_000, b"20", Decimal(20), 1j, [20], np.ones(1))


@pytest.mark.parametrize("value", [*LONG, *SHORT], ids=lambda value: f"{type(value).__name__}")
def test_a_duration(value):
    found = seconds("timeout", value)
    assert type(found) is float
    assert found in (20.0, 20.5) or found >= 1e19


@pytest.mark.parametrize("value", LONG, ids=lambda value: f"{type(value).__name__}")
def test_a_bound(value):
    with pytest.raises(nc.ArgumentError, match="timeout must be at most 1e"):
        seconds("timeout", value, 1e9)


@pytest.fixture
def calls(connector, make_connector):
    """Everything that takes seconds, as a function of these."""
    pool = nc.HostPool(connector, max_bytes=MIB, slab_bytes=MIB)
    lease = pool.acquire_blocking(8)
    source, target = nc.Descriptor(bytearray(8)), nc.Descriptor(bytearray(8))
    mover = make_connector()

    def offer(writable=False, timeout=20):
        make = (
            connector.create_writable_blocking if writable else connector.create_readable_blocking
        )
        return make(target if writable else source, timeout=timeout)

    def moved(timeout):
        with offer() as offered:
            mover.begin_read_blocking(
                offered.metadata(), target, timeout=timeout
            ).wait_for_completion_blocking(20)
            offered.wait_for_completion_blocking(20)

    async def moved_soon(timeout):
        offered = await connector.create_writable(target, timeout=timeout)
        write = await mover.begin_write(source, offered.metadata(), timeout=timeout)
        await write.wait_for_completion(timeout)
        await offered.wait_for_completion(timeout)

    def waited(timeout):
        with offer() as offered:
            read = mover.begin_read_blocking(offered.metadata(), target)
            read.wait_for_completion_blocking(timeout)
            offered.wait_for_completion_blocking(timeout)

    def prepared(timeout):
        with offer() as offered:
            with mover.prepare_read_blocking(offered.metadata(), target, timeout=timeout) as read:
                read.transfer_blocking(timeout)
            offered.wait_for_completion_blocking(20)

    def posted(timeout):
        with offer() as offered:
            with mover.prepare_read_blocking(offered.metadata(), target) as read:
                read.transfer_blocking(timeout)
            offered.wait_for_completion_blocking(20)

    async def prepared_soon(timeout):
        with offer(writable=True) as offered:
            prepared = await mover.prepare_write(source, offered.metadata(), timeout=timeout)
            async with prepared:
                await prepared.transfer(timeout)
            await offered.wait_for_completion(20)

    async def leased(timeout):
        (await pool.acquire(8, timeout)).release()
        await lease.copy_from(bytes(8), timeout=timeout)
        await lease.copy_to(bytearray(8), timeout=timeout)

    def leased_blocking(timeout):
        pool.acquire_blocking(8, timeout).release()
        lease.copy_from_blocking(bytes(8), timeout=timeout)
        lease.copy_to_blocking(bytearray(8), timeout=timeout)

    yield {
        "connector": lambda timeout: nc.Connector(timeout=timeout),
        "create": lambda timeout: offer(timeout=timeout).cancel(),
        "begin": moved,
        "wait": waited,
        "prepare": prepared,
        "post": posted,
        "lease": leased_blocking,
        "coroutines": lambda timeout: asyncio.run(moved_soon(timeout)),
        "coroutines of prepared ones": lambda timeout: asyncio.run(prepared_soon(timeout)),
        "coroutines of pools": lambda timeout: asyncio.run(leased(timeout)),
        "operations": connector.operations,
    }
    pool.close()


@pytest.mark.parametrize("value", [*LONG, *SHORT], ids=lambda value: f"{type(value).__name__}")
def test_all_take_durations(calls, value):
    for call in calls.values():
        call(value)


@pytest.mark.parametrize(
    ("values", "error"), [(NEGATIVE, nc.ArgumentError), (NO_NUMBERS, nc.ArgumentTypeError)]
)
def test_none_takes_anything_else(calls, values, error):
    for value in values:
        for call in calls.values():
            with pytest.raises(error):
                call(value)


@pytest.mark.parametrize("option", ["quarantine", "drain", "progress_interval", "seal_lifetime"])
def test_options_that_clocks_are_set_by(option):
    for value in LONG:
        with pytest.raises(nc.ArgumentError, match=f"{option} must be at most 1e"):
            nc.Connector(**{option: value})
    for value in NEGATIVE:
        with pytest.raises(nc.ArgumentError, match=option):
            nc.Connector(**{option: value})
    for value in NO_NUMBERS:
        with pytest.raises(nc.ArgumentTypeError, match=option):
            nc.Connector(**{option: value})
    for value in SHORT:
        nc.Connector(**{option: value})


@pytest.mark.parametrize(
    "option", ["max_descriptors", "max_metadata_bytes", "max_peer_regions", "max_quarantine_bytes"]
)
def test_large_counts(make_connector, option):
    """What has 64 bits is a bound that nothing reaches; what has more is refused."""
    for value in (1 << 64, 10**400, 10**6000):
        with pytest.raises(nc.ArgumentError, match=option):
            nc.Connector(**{option: value})
    one, other = (make_connector(**{option: (1 << 64) - 1}) for _ in range(2))
    # Long metadata too, which is inflated anew.
    sources = [nc.Descriptor(bytes([i] * 8)) for i in range(200)]
    targets = [nc.Descriptor(bytearray(8)) for _ in range(200)]
    for count in (1, 200):
        with one.create_readable_blocking(sources[:count]) as offered:
            read = other.begin_read_blocking(offered.metadata(), targets[:count])
            read.wait_for_completion_blocking(20)
            offered.wait_for_completion_blocking(20)
    assert other.operations(limit=(1 << 64) - 1) == []
    with pytest.raises(nc.ArgumentError):
        other.operations(limit=1 << 64)

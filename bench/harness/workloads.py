"""What is measured: for each workload, what the passive and what the active side do.

A workload is a class with two coroutines, `passive` and `active`, that run in two processes at the
same time and return lists of seconds or, for moments, of CLOCK_MONOTONIC in seconds, which the two
processes share. `combine` makes figures of the two. Every byte that arrives is compared.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from typing import Any

import numpy as np

from harness.backends.base import Bytes, touched
from harness.link import Link
from harness.memory import Memory, mark, verify
from harness.named import Named
from harness.once import Once
from harness.work import Samples, Side


class Cycle:
    """One operation at a time: offer, message, fetch, both sides told.

    Figures: ``create`` (offer, with its message made), ``read`` (message at hand to bytes at hand),
    ``told`` (from then until the passive side's waiter runs), ``cycle`` (all of it, sideband
    included).
    """

    @staticmethod
    async def passive(
        side: Side, rounds: int, size: int, count: int = 1, memory: str = "fresh", every: int = 1
    ) -> Samples:
        """Offer. Of long runs one sample in `every` is kept, or memory would grow with them."""
        source = Memory(side.backend, memory, size, count)
        began, made, told = [], [], []
        for number in range(rounds):
            buffers = source.next()
            mark(buffers, number)
            moments = [time.monotonic()]
            handle, message = await side.backend.offer(buffers)
            moments.append(time.monotonic())
            side.link.send(message)
            await side.backend.told(handle)
            if number % every == 0:
                began.append(moments[0])
                made.append(moments[1])
                told.append(time.monotonic())
        return {"began": began, "made": made, "told": told}

    @staticmethod
    async def active(
        side: Side, rounds: int, size: int, count: int = 1, memory: str = "fresh", every: int = 1
    ) -> Samples:
        """Fetch."""
        target = Memory(side.backend, memory, size, count)
        received, done = [], []
        for number in range(rounds):
            buffers = target.next()
            message = await side.link.receive()
            began = time.monotonic()
            await side.backend.fetch(message, buffers)
            if number % every == 0:
                received.append(began)
                done.append(time.monotonic())
            verify(buffers, number)
        return {"received": received, "done": done}

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return {
            "create": _between(passive["began"], passive["made"]),
            "read": _between(active["received"], active["done"]),
            "told": _between(active["done"], passive["told"]),
            "cycle": _between(passive["began"], passive["told"]),
        }


class Paged(Cycle):
    """Blocks of a cache in another order each round, into blocks in order, as one operation.

    Figures as for `Cycle`.
    """

    @staticmethod
    async def passive(side: Side, rounds: int, size: int, count: int) -> Samples:
        """Offer blocks of one memory."""
        cache = np.repeat(np.arange(count, dtype=np.uint32), size // 4).view(np.uint8)
        kept = side.backend.register(cache)
        orders = np.random.default_rng(0)
        began, made, told = [], [], []
        for _ in range(rounds):
            order = orders.permutation(count)
            began.append(time.monotonic())
            handle, message = await side.backend.offer_blocks(cache, size, order)
            made.append(time.monotonic())
            side.link.send(message)
            await side.backend.told(handle)
            told.append(time.monotonic())
        del kept
        return {"began": began, "made": made, "told": told}

    @staticmethod
    async def active(side: Side, rounds: int, size: int, count: int) -> Samples:
        """Fetch them, and compare every one."""
        target = touched(count * size)
        kept = side.backend.register(target)
        orders = np.random.default_rng(0)
        received, done = [], []
        for _ in range(rounds):
            target[:] = 255
            message = await side.link.receive()
            received.append(time.monotonic())
            await side.backend.fetch_blocks(message, target, size, np.arange(count))
            done.append(time.monotonic())
            seen = target.view(np.uint32).reshape(count, -1)
            if not (seen == orders.permutation(count)[:, None]).all():
                raise AssertionError("wrong bytes")
        del kept
        return {"received": received, "done": done}


class Burst:
    """Many operations at once: all are offered, then all are fetched together.

    Figure: ``operation``, the time of a whole round divided by the operations in it.
    """

    @staticmethod
    async def passive(side: Side, rounds: int, size: int, pending: int) -> Samples:
        """Offer all, and wait for all."""
        per_operation = []
        for number in range(rounds):
            sources = list(np.zeros((pending, size), np.uint8))
            for source in sources:
                mark([source], number)
            began = time.monotonic()
            handles = []
            for source in sources:
                handle, message = await side.backend.offer([source])
                side.link.send(message)
                handles.append(handle)
            await asyncio.gather(*map(side.backend.told, handles))
            per_operation.append((time.monotonic() - began) / pending)
            side.link.send(b"next")
        return {"operation": per_operation}

    @staticmethod
    async def active(side: Side, rounds: int, size: int, pending: int) -> Samples:
        """Fetch all together."""
        for number in range(rounds):
            targets = list(np.zeros((pending, size), np.uint8))
            messages = [await side.link.receive() for _ in targets]
            await asyncio.gather(
                *(
                    side.backend.fetch(message, [target])
                    for message, target in zip(messages, targets, strict=True)
                )
            )
            for target in targets:
                verify([target], number)
            assert await side.link.receive() == b"next"
        return {}

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return passive


class Waiting(Cycle):
    """`Cycle` while other operations wait for a peer that does not come.

    Figures as for `Cycle`.
    """

    @staticmethod
    async def passive(
        side: Side, rounds: int, size: int, pending: int, memory: str = "same"
    ) -> Samples:
        """Offer what nobody fetches, then offer as usual, then let all of it be fetched."""
        left = list(np.zeros((pending, size), np.uint8))
        for buffer in left:
            mark([buffer], 0)
        offered = [await side.backend.offer([buffer]) for buffer in left]
        waiters = [asyncio.ensure_future(side.backend.told(handle)) for handle, _ in offered]
        await asyncio.sleep(0)
        samples = await Cycle.passive(side, rounds, size, 1, memory)
        for _, message in offered:
            side.link.send(message)
        await asyncio.gather(*waiters)
        return samples

    @staticmethod
    async def active(
        side: Side, rounds: int, size: int, pending: int, memory: str = "same"
    ) -> Samples:
        """Fetch as usual, and then what was left."""
        samples = await Cycle.active(side, rounds, size, 1, memory)
        for _ in range(pending):
            target = np.zeros(size, np.uint8)
            await side.backend.fetch(await side.link.receive(), [target])
            verify([target], 0)
        return samples


class Stall(Cycle):
    """`Cycle` of large reads beside a ticker on each side's loop.

    Figures: ``active`` and ``passive``, the longest time between two ticks in each round, less the
    tick's own millisecond.
    """

    _TICK = 0.001

    @classmethod
    async def passive(cls, side: Side, rounds: int, size: int) -> Samples:
        """Offer, ticking."""
        return await cls._ticking(Cycle.passive(side, rounds + 1, size, 1, "same"), "told")

    @classmethod
    async def active(cls, side: Side, rounds: int, size: int) -> Samples:
        """Fetch, ticking."""
        return await cls._ticking(Cycle.active(side, rounds + 1, size, 1, "same"), "done")

    @classmethod
    async def _ticking(cls, work: Any, moment: str) -> Samples:
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(cls._TICK)

        ticker = asyncio.ensure_future(tick())
        began = time.monotonic()
        samples = await work
        # One tick more, that a stall at the very end be seen.
        await asyncio.sleep(2 * cls._TICK)
        ticker.cancel()
        longest, start = [], began
        for end in samples[moment]:
            inside = [start, *(t for t in ticks if start < t)]
            gaps = [b - a for a, b in itertools.pairwise(inside) if a < end]
            longest.append(max([0.0, *(gap - cls._TICK for gap in gaps)]))
            start = end
        # The first round makes the buffers, on the loop.
        return {"longest": longest[1:]}

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return {"passive": passive["longest"], "active": active["longest"]}


class Fan:
    """One active side that fetches from several passive ones at once.

    Figure: ``operation``, the time of a round divided by the operations in it.
    """

    @staticmethod
    async def passive(side: Side, rounds: int, size: int) -> Samples:
        """Offer."""
        await Cycle.passive(side, rounds, size, 1, "fresh")
        return {}

    @staticmethod
    async def active(side: Side, rounds: int, size: int) -> Samples:
        """Fetch from all."""
        samples = []
        targets = [np.zeros(size, np.uint8) for _ in side.links]

        async def one(link: Link, target: Bytes) -> None:
            await side.backend.fetch(await link.receive(), [target])

        for number in range(rounds):
            began = time.monotonic()
            await asyncio.gather(*map(one, side.links, targets))
            samples.append((time.monotonic() - began) / len(targets))
            for target in targets:
                verify([target], number)
        return {"operation": samples}

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return active


class Prepared:
    """One transfer, prepared once and posted again and again, in the blocking form.

    Figure: ``repost``.
    """

    @staticmethod
    async def passive(side: Side, rounds: int, size: int, count: int = 1) -> Samples:
        """Offer once; the other side says when it has enough."""
        buffers = Memory(side.backend, "same", size, count).next()
        mark(buffers, 0)
        handle, message = await side.backend.offer(buffers)
        side.link.send(message)
        assert await side.link.receive() == b"enough"
        del handle
        return {}

    @staticmethod
    async def active(side: Side, rounds: int, size: int, count: int = 1) -> Samples:
        """Post again and again."""
        buffers = Memory(side.backend, "same", size, count).next()
        prepared = side.backend.prepare(await side.link.receive(), buffers)
        samples = []
        for _ in range(rounds):
            mark(buffers, 1)
            began = time.monotonic()
            side.backend.repost(prepared)
            samples.append(time.monotonic() - began)
            verify(buffers, 0)
        del prepared
        side.link.send(b"enough")
        return {"repost": samples}

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return active


class Idle:
    """Processor time of both sides while nothing moves.

    Figures: ``passive`` and ``active``, seconds of processor time per second.
    """

    @staticmethod
    async def passive(side: Side, seconds: float, pending: int) -> Samples:
        """Offer what nobody fetches for a while."""
        buffer = np.zeros(8, np.uint8)
        mark([buffer], 0)
        # One cycle first, so that connections stand and threads run.
        await Cycle.passive(side, 3, 8, 1, "same")
        offered = [await side.backend.offer([buffer]) for _ in range(pending)]
        waiters = [asyncio.ensure_future(side.backend.told(handle)) for handle, _ in offered]
        share = await _idle(seconds)
        for _, message in offered:
            side.link.send(message)
        await asyncio.gather(*waiters)
        return {"share": [share]}

    @staticmethod
    async def active(side: Side, seconds: float, pending: int) -> Samples:
        """Do nothing for a while."""
        await Cycle.active(side, 3, 8, 1, "same")
        share = await _idle(seconds)
        for _ in range(pending):
            target = np.zeros(8, np.uint8)
            await side.backend.fetch(await side.link.receive(), [target])
            verify([target], 0)
        return {"share": [share]}

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return {"passive": passive["share"], "active": active["share"]}


class Alone:
    """What the passive process does by itself; figures as the backend names them."""

    @staticmethod
    async def passive(side: Side, rounds: int) -> Samples:
        """Do it."""
        return side.backend.alone(rounds)

    @staticmethod
    async def active(side: Side, rounds: int) -> Samples:
        """Do nothing."""
        return {}

    @staticmethod
    def combine(passive: Samples, active: Samples) -> Samples:
        """Make figures."""
        return passive


class OneProcess(Alone):
    """Whole operations between two ends of the passive process.

    Figures: stages, as the backend names them, and ``pair``, all of them.
    """

    @staticmethod
    async def passive(side: Side, rounds: int, size: int, memory: str, form: str) -> Samples:
        """Do them."""
        return await side.backend.pairs(rounds, size, memory, form)

    @staticmethod
    async def active(side: Side, rounds: int, size: int, memory: str, form: str) -> Samples:
        """Do nothing."""
        return {}


async def _idle(seconds: float) -> float:
    """Sleep; return the processor time that the process used meanwhile, per second."""
    await asyncio.sleep(0.2)  # what came before settles
    before, began = cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    return (sum(cpu()) - sum(before)) / (time.monotonic() - began)


def cpu() -> tuple[float, float]:
    """Return the process's processor time in seconds, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def _between(starts: list[float], ends: list[float]) -> list[float]:
    return [end - start for start, end in zip(starts, ends, strict=True)]


WORKLOADS: dict[str, Any] = {
    "cycle": Cycle,
    "paged": Paged,
    "burst": Burst,
    "waiting": Waiting,
    "stall": Stall,
    "fan": Fan,
    "prepared": Prepared,
    "idle": Idle,
    "alone": Alone,
    "pair": OneProcess,
    "named": Named,
    "once": Once,
}

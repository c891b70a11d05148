"""What the threads of hammer.py do, and what they share."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import random
import signal
import threading
import time
import traceback
import warnings
from collections import Counter
from typing import Any

import numpy as np

import nixl_connect as nc
from nixl_connect.peers import lanes

# As where the process may use more than one processor.
lanes.COUNT = 2
# Up to this power of two bytes are arrays that are to go by lanes.
LANES = 20

PATIENCE = 60.0
# However fast operations are made, what they held is let go of as fast.
MOST_HELD = 1000
# What an operation may end with whose connector is closed meanwhile.
ENDED = (nc.ClosedError, nc.OperationCancelledError, nc.StateError, nc.TransferError)


def await_end(operation: nc.AbstractOperation) -> None:
    """Wait for an operation that may be cancelled on either side."""
    try:
        operation.wait_for_completion_blocking(PATIENCE)
    except TimeoutError:
        raise
    except (nc.OperationCancelledError, nc.TransferError):
        pass


class Hammer:
    """What all threads share."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.pair = [nc.Connector(f"hammer-{i}", quarantine=0.05) for i in range(2)]
        self.mortal = nc.Connector("mortal-0", quarantine=0.0, drain=1.0)
        self.mortals = 1
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.failed = False

    def is_over(self) -> bool:
        """Whether to stop."""
        return self.failed or time.monotonic() > self.end

    def count(self, what: str) -> None:
        """Count something that was done."""
        with self.lock:
            self.counts[what] += 1

    def replace_mortal(self) -> None:
        """Close a connector that others use, and put another one in its place."""
        with self.lock:
            old = self.mortal
            self.mortal = nc.Connector(f"mortal-{self.mortals}", quarantine=0.0, drain=1.0)
            self.mortals += 1
        old.close_blocking()


class Worker:
    """One thread's part.

    Parameters
    ----------
    hammer : Hammer
        What it shares with others.
    seed : int
        What its chances follow from.
    """

    def __init__(self, hammer: Hammer, seed: int) -> None:
        self.hammer = hammer
        self.rng = random.Random(seed)
        # One thread alone: forking stops all others for a moment.
        self.forks = seed % 1000 == 0

    def arrays(self, most: int = 2**20) -> tuple[Any, Any]:
        """Return some bytes, and as many zeros."""
        size = int(2 ** self.rng.uniform(0, math.log2(most)))
        source = np.frombuffer(bytearray(self.rng.randbytes(size)), np.uint8)
        return source, np.zeros(size, np.uint8)

    def lists(self) -> tuple[list[Any], list[Any]]:
        """Return arrays of varying sizes, and as many zeros; now and then enough for lanes."""
        most = LANES if self.rng.random() < 0.05 else 16
        sizes = [int(2 ** self.rng.uniform(0, most)) for _ in range(self.rng.randint(1, 16))]
        if most is LANES:
            sizes.append(lanes.LEAST_BYTES)
        sources = [np.frombuffer(bytearray(self.rng.randbytes(size)), np.uint8) for size in sizes]
        return sources, [np.zeros(size, np.uint8) for size in sizes]

    def sides(self) -> tuple[nc.Connector, nc.Connector]:
        """Return who offers and who moves."""
        one, other = self.rng.sample(self.hammer.pair, 2)
        return one, other

    # --- blocking ---------------------------------------------------------------------------

    def read(self) -> None:
        """A whole transfer."""
        passive, active = self.sides()
        source, target = self.arrays()
        with passive.create_readable_blocking(nc.Descriptor(source)) as offered:
            read = active.begin_read_blocking(offered.metadata(), nc.Descriptor(target))
            read.wait_for_completion_blocking(PATIENCE)
            offered.wait_for_completion_blocking(PATIENCE)
        assert (source == target).all()

    def write(self) -> None:
        """A whole transfer the other way."""
        passive, active = self.sides()
        source, target = self.arrays()
        with passive.create_writable_blocking(nc.Descriptor(target)) as offered:
            write = active.begin_write_blocking(nc.Descriptor(source), offered.metadata())
            write.wait_for_completion_blocking(PATIENCE)
            offered.wait_for_completion_blocking(PATIENCE)
        assert (source == target).all()

    def vary(self) -> None:
        """A whole transfer of many arrays, either way."""
        passive, active = self.sides()
        sources, targets = self.lists()
        theirs, ours = sources, targets
        offer, begin = passive.create_readable_blocking, active.begin_read_blocking
        if self.rng.random() < 0.5:
            theirs, ours = targets, sources
            offer = passive.create_writable_blocking

            def begin(told: Any, local: Any) -> Any:
                return active.begin_write_blocking(local, told)

        with offer([nc.Descriptor(array) for array in theirs]) as offered:
            moved = begin(offered.metadata(), [nc.Descriptor(array) for array in ours])
            moved.wait_for_completion_blocking(PATIENCE)
            offered.wait_for_completion_blocking(PATIENCE)
        for source, target in zip(sources, targets, strict=True):
            assert (source == target).all()

    def fork(self) -> None:
        """Fork: the child is refused, drops what it has, and ends; nobody here notices."""
        passive, active = self.sides()
        source, target = self.arrays()
        with passive.create_readable_blocking(nc.Descriptor(source)) as offered:
            with warnings.catch_warnings():  # that other threads are not in the child
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                self.in_child(offered)
            read = active.begin_read_blocking(offered.metadata(), nc.Descriptor(target))
            read.wait_for_completion_blocking(PATIENCE)
            offered.wait_for_completion_blocking(PATIENCE)
        assert (source == target).all()
        end = time.monotonic() + PATIENCE
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise AssertionError("a child hangs")
            time.sleep(0.001)
        assert ended[1] == 0

    def in_child(self, offered: nc.AbstractOperation) -> None:
        """Be a forked child, in which no thread but this one goes on."""
        try:
            for connector in self.hammer.pair:
                try:
                    connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
                except nc.ClosedError:
                    continue
                os._exit(1)
            offered.__exit__(None, None, None)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(2)

    def repeat(self) -> None:
        """A prepared transfer, made a few times."""
        passive, active = self.sides()
        source, target = self.arrays()
        with passive.create_readable_blocking(nc.Descriptor(source)) as offered:
            with active.prepare_read_blocking(offered.metadata(), nc.Descriptor(target)) as read:
                for value in range(3):
                    source[:] = value
                    read.transfer_blocking(PATIENCE)
                    assert (target == value).all()
            offered.wait_for_completion_blocking(PATIENCE)

    def cancel(self) -> None:
        """Cancel one side, in the middle of it or nearly."""
        passive, active = self.sides()
        source, target = self.arrays()
        offered = passive.create_readable_blocking(nc.Descriptor(source), timeout=PATIENCE)
        read = active.begin_read_blocking(offered.metadata(), nc.Descriptor(target))
        first, second = (read, offered) if self.rng.random() < 0.5 else (offered, read)
        first.cancel()
        for operation in (first, second):
            await_end(operation)

    def drop(self) -> None:
        """Drop everything, in any order."""
        passive, active = self.sides()
        source, target = self.arrays()
        dropped = [passive.create_writable_blocking(nc.Descriptor(target))]
        if self.rng.random() < 0.7:
            metadata = dropped[0].metadata()
            if self.rng.random() < 0.7:
                dropped.append(active.begin_write_blocking(nc.Descriptor(source), metadata))
        self.rng.shuffle(dropped)
        while dropped:
            dropped.pop()

    def expire(self) -> None:
        """Leave an operation to its deadline."""
        passive, _ = self.sides()
        _, target = self.arrays()
        try:
            offered = passive.create_writable_blocking(nc.Descriptor(target), timeout=0.001)
        except nc.TransferTimeoutError:
            return  # so much had to be let go of first that it did not begin in time
        try:
            offered.wait_for_completion_blocking(PATIENCE)
        except nc.TransferTimeoutError:
            return
        raise AssertionError("nobody wrote to it")

    def within(self) -> None:
        """A transfer within one connector, whose sides end in any order."""
        connector = self.rng.choice(self.hammer.pair)
        source, target = self.arrays(2**22)
        offered = connector.create_readable_blocking(nc.Descriptor(source))
        metadata = offered.metadata()
        if self.rng.random() < 0.3:
            offered.cancel()
        try:
            read = connector.begin_read_blocking(metadata, nc.Descriptor(target))
        except nc.TransferError:
            return  # nothing was registered any more
        sides = [offered, read]
        self.rng.shuffle(sides)
        if self.rng.random() < 0.5:
            sides.pop().cancel()
        for operation in sides:
            await_end(operation)
        if read.status is nc.OperationStatus.COMPLETE:
            assert (source == target).all()

    def repeat_within(self) -> None:
        """The same, prepared: it outlives what it was prepared for."""
        connector = self.rng.choice(self.hammer.pair)
        source, target = self.arrays(2**22)
        offered = connector.create_writable_blocking(nc.Descriptor(target))
        metadata = offered.metadata()
        with connector.prepare_write_blocking(nc.Descriptor(source), metadata) as write:
            for value in range(3):
                if value == self.rng.randrange(3):
                    offered.cancel()
                source[:] = value
                write.transfer_blocking(PATIENCE)
                assert (target == value).all()
        await_end(offered)

    def look(self) -> None:
        """Read what there is to read."""
        for connector in self.hammer.pair:
            connector.stats()
            for report in connector.operations():
                str(report)
        if self.rng.random() < 0.05:
            gc.collect()

    def mortal(self) -> None:
        """Use a connector that may be closed at any moment; close it now and then."""
        if self.rng.random() < 0.02:
            self.hammer.replace_mortal()
            return
        connector = self.hammer.mortal
        source, target = self.arrays()
        try:
            offered = connector.create_readable_blocking(nc.Descriptor(source))
            read = self.hammer.pair[0].begin_read_blocking(
                offered.metadata(), nc.Descriptor(target), timeout=PATIENCE
            )
            read.wait_for_completion_blocking(PATIENCE)
            assert (source == target).all()
            offered.wait_for_completion_blocking(PATIENCE)
        except TimeoutError:
            raise
        except ENDED:
            pass

    def part(self, source: Any) -> tuple[Any, list[tuple[int, int, int]]]:
        """Return zeros for a part of some bytes, and which part that is."""
        size = self.rng.randint(1, source.size)
        return np.zeros(size, np.uint8), [(0, self.rng.randint(0, source.size - size), size)]

    def share(self) -> None:
        """An offer to several readers of parts; one may give up, and the owner may end it."""
        passive, active = self.sides()
        source, _ = self.arrays()
        readers = self.rng.randint(2, 5)
        most = self.rng.choice((readers, None))
        offered = passive.create_readable_blocking(nc.Descriptor(source), transfers=most)
        given_up = 0
        while offered.transfers_done < readers:
            target, parts = self.part(source)
            done = offered.transfers_done
            read = active.begin_read_blocking(
                offered.metadata(), nc.Descriptor(target), parts=parts
            )
            if self.rng.random() < 0.1:
                read.cancel()
            try:
                read.wait_for_completion_blocking(PATIENCE)
            except nc.OperationCancelledError:
                given_up += 1
                continue
            _, offset, size = parts[0]
            assert (target == source[offset : offset + size]).all()
            end = time.monotonic() + PATIENCE
            while offered.transfers_done == done:
                assert time.monotonic() < end, "a transfer is not counted"
                time.sleep(0)
        if most is None:
            offered.finish()
        offered.wait_for_completion_blocking(PATIENCE)
        assert offered.transfers_failed <= given_up

    def run(self) -> None:
        """Do this and that until it is over."""
        acts = [
            self.read,
            self.write,
            self.vary,
            self.share,
            self.repeat,
            self.cancel,
            self.drop,
            self.expire,
            self.within,
            self.repeat_within,
            self.look,
            self.mortal,
        ]
        if self.forks:
            acts.append(self.fork)
        while not self.hammer.is_over():
            act = self.rng.choice(acts)
            act()
            self.hammer.count(act.__name__)

    # --- on a loop --------------------------------------------------------------------------

    async def transfer(self) -> None:
        """Whole transfers, some at once."""
        passive, active = self.sides()

        async def one() -> None:
            source, target = self.arrays()
            async with await passive.create_readable(nc.Descriptor(source)) as offered:
                read = await active.begin_read(offered.metadata(), nc.Descriptor(target))
                await asyncio.gather(
                    read.wait_for_completion(PATIENCE), offered.wait_for_completion(PATIENCE)
                )
            assert (source == target).all()

        await asyncio.gather(*(one() for _ in range(self.rng.choice((1, 8)))))

    async def interrupt(self) -> None:
        """Cancel tasks, wherever they are; some move bytes within one connector."""
        passive, active = self.sides()
        if self.rng.random() < 0.3:
            active = passive

        async def one() -> None:
            source, target = self.arrays()
            offered = await passive.create_writable(nc.Descriptor(target))
            write = await active.begin_write(nc.Descriptor(source), offered.metadata())
            await write.wait_for_completion(PATIENCE)
            await offered.wait_for_completion(PATIENCE)

        task = asyncio.ensure_future(one())
        await asyncio.sleep(self.rng.uniform(0, 0.002))
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done()
        if not task.cancelled():
            task.result()

    async def repeat_on_loop(self) -> None:
        """A prepared transfer, made a few times."""
        passive, active = self.sides()
        source, target = self.arrays()
        offered = await passive.create_writable(nc.Descriptor(target))
        prepared = await active.prepare_write(nc.Descriptor(source), offered.metadata())
        async with prepared as write:
            for value in range(3):
                source[:] = value
                await write.transfer(PATIENCE)
                assert (target == value).all()
        await offered.wait_for_completion(PATIENCE)

    async def share_on_loop(self) -> None:
        """An array that several write parts of, at once."""
        passive, active = self.sides()
        source, target = self.arrays()
        edges = sorted({0, source.size, *(self.rng.randint(0, source.size) for _ in range(4))})
        pieces = list(itertools.pairwise(edges))
        offered = await passive.create_writable(nc.Descriptor(target), transfers=len(pieces))

        async def write(start: int, end: int) -> None:
            operation = await active.begin_write(
                nc.Descriptor(source[start:end]),
                offered.metadata(),
                parts=[(0, start, end - start)],
            )
            await operation.wait_for_completion(PATIENCE)

        await asyncio.gather(*(write(*piece) for piece in pieces))
        await offered.wait_for_completion(PATIENCE)
        assert (source == target).all()

    async def run_on_loop(self) -> None:
        """Do this and that until it is over, on a loop."""
        acts = [self.transfer, self.interrupt, self.repeat_on_loop, self.share_on_loop]
        while not self.hammer.is_over():
            act = self.rng.choice(acts)
            await act()
            self.hammer.count(act.__name__)

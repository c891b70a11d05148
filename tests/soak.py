"""Mixed traffic between one process and several peers, with faults at random, every byte compared.

    python soak.py --seconds 120 --seed 1
    python soak.py --operations 1000000 --faults 0

Each peer is served by a task: rounds of operations of every kind and size, into which it cancels,
drops, alters metadata, withdraws memory, stops the peer or kills it, which comes back under the
same name; one peer is never killed. All metadata is sealed. Memory is new for each operation, of
any size, as one array, parts of one, or many. An operation that is complete has moved every
byte, on both sides; one that is not has an error of the kind that its fault calls for. Between the
rounds bytes are moved within the process's own connector, and it forks now and then. Prints, as
JSON, what was done, what came of it, and what the process and the peer that lives on held when they
had warmed up and at the end; ends with an error if that grew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import json
import os
import random
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from holding import footprint, held
from peer import content, digest, pieces_of
from processes import Peer

import nixl_connect as nc
from nixl_connect.peers import lanes

# As where the process may use more than one processor.
lanes.COUNT = 2

KEY = b"a key for the soak"
PEERS = 4
# The one that is never killed.
STEADY = 0
# Seconds: what an operation may take, and what a peer that was stopped or restarted may.
PATIENCE = 30.0
QUARANTINE = 1.0
# What may be held more at one time than at another: of sockets, by connections to all peers.
SOCKETS = 2 * PEERS
RELOADS = 3
ROOM = {"threads": 0, "descriptors": SOCKETS, "sockets": SOCKETS, "memory": 16 << 20}
FAULTS = ("cancel", "drop", "alter", "withdraw", "stop", "kill")
LOST = (nc.PeerLostError, nc.TransferError)


def fork() -> None:
    """Fork, in the middle of everything: the child does nothing, and ends; nobody notices."""
    with warnings.catch_warnings():  # that other threads are not in the child
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


class Soak:
    """The traffic of one process.

    Parameters
    ----------
    seed : int
        What all chances follow from.
    faults : float
        Which part of the rounds has one.
    """

    def __init__(self, seed: int, faults: float) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.connector = nc.Connector("soak", keys=KEY, quarantine=QUARANTINE)
        self.peers: list[Peer | None] = [None] * PEERS
        # All its threads from the start: they are counted.
        self.executor = ThreadPoolExecutor(PEERS)
        barrier = threading.Barrier(PEERS)
        for _ in range(PEERS):
            self.executor.submit(barrier.wait)
        self.outcomes: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.moved = 0
        self.done = 0

    async def on_thread(self, call: Any, *arguments: Any, **options: Any) -> Any:
        """Run what blocks for a peer's process."""
        call = functools.partial(call, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self.executor, call)

    def start(self, number: int) -> Peer:
        """Start a peer; its name is always the same."""
        peer = self.peers[number] = Peer({})
        peer.do(
            "connect",
            name=f"soak-{number}",
            options={"keys": [KEY.hex()], "quarantine": QUARANTINE},
        )
        return peer

    async def serve(self, number: int, is_over: Any) -> None:
        """Make rounds with one peer until it is over."""
        while not is_over():
            peer = self.peers[number]
            if peer is None or peer.process.poll() is not None:
                if peer is not None:
                    peer.end()
                peer = await self.on_thread(self.start, number)
            await self.round(peer)
            if self.rng.random() < 0.5:
                await self.within()
            if self.rng.random() < 0.05:
                await self.on_thread(fork)

    async def round(self, peer: Peer) -> None:
        """Make some operations at once, with at most one fault."""
        rng = self.rng
        kind = rng.choice(("readable", "writable"))
        sizes = [int(2 ** rng.uniform(0, 18)) for _ in range(rng.choice((1, 4, 16, 64)))]
        if not self.done or rng.random() < 0.02:  # at first, so that lanes are counted
            sizes = [rng.randrange(5 << 20, 9 << 20)]
        seed = rng.randrange(1 << 40)
        faults = [each for each in FAULTS if each != "kill" or peer is not self.peers[STEADY]]
        fault = rng.choice(faults) if rng.random() < self.faults else ""
        missing = [each for each in faults if each not in self.injected]
        if missing and self.faults and "none" in self.injected:
            fault = missing[0]  # each of them at least once, however slow the machine is
        self.injected[fault or "none"] += 1
        pieces = rng.choice((1, 1, rng.randint(2, 16)))
        if len(sizes) == 1 and rng.random() < 0.2:
            pieces = rng.randint(17, 1000)
        apart = [rng.random() < 0.5 for _ in ("theirs", "ours")]
        made = await self.on_thread(
            peer.do, "many", kind=kind, sizes=sizes, pieces=pieces, seed=seed, apart=apart[0]
        )
        told = [nc.RdmaMetadata.model_validate(item["metadata"]) for item in made["made"]]
        numbers = [item["id"] for item in made["made"]]
        if kind == "readable":
            arrays = [np.zeros(size, np.uint8) for size in sizes]
        else:
            arrays = [content(seed + i, size) for i, size in enumerate(sizes)]
        cut = [pieces_of(array, pieces) for array in arrays]
        if apart[1]:
            cut = [[piece.copy() for piece in each] for each in cut]
        del arrays
        hit = {i for i in range(len(sizes)) if fault and rng.random() < 0.5} | {0}
        if fault == "alter":
            for i in hit:
                told[i] = self.altered(told[i])
        if fault == "withdraw":
            await self.on_thread(peer.do, "abandon", numbers=[numbers[i] for i in hit])
        if fault == "stop":
            await self.on_thread(peer.stop)
        later = None
        if fault in ("stop", "kill"):
            act = peer.resume if fault == "stop" else peer.process.kill
            later = asyncio.get_running_loop().call_later(rng.uniform(0, 0.2), act)
        results = await asyncio.gather(
            *(
                self.one(kind, told[i], each, fault if i in hit else "")
                for i, each in enumerate(cut)
            )
        )
        if later is not None:
            await asyncio.sleep(max(later.when() - asyncio.get_running_loop().time(), 0) + 0.01)
        theirs = [("gone", "")] * len(sizes)
        if fault == "kill":
            await self.on_thread(peer.process.wait, PATIENCE)
        else:
            unused = [
                number
                for number, result in zip(numbers, results, strict=True)
                if result in ("refused", "dropped")
            ]
            answer = await self.on_thread(
                peer.do, "outcomes", PATIENCE, numbers=numbers, abandoned=unused
            )
            theirs = answer["outcomes"]
        for i, (result, (status, sha)) in enumerate(zip(results, theirs, strict=True)):
            self.check(fault if fault != "cancel" or i in hit else "", i in hit, result, status)
            if result != "complete":
                continue
            array = np.concatenate(cut[i])
            if kind == "readable":
                assert (array == content(seed + i, sizes[i])).all(), "wrong bytes were read"
            elif status == "DONE":
                assert sha == digest(array), "wrong bytes were written"
            self.moved += sizes[i]
        self.done += len(sizes)

    async def within(self) -> None:
        """Move bytes within the process's own connector, whose sides end in any order."""
        rng = self.rng
        source = content(rng.randrange(1 << 40), int(2 ** rng.uniform(0, 21)))
        target = np.zeros_like(source)
        offered = await self.connector.create_readable(nc.Descriptor(source))
        read = await self.connector.begin_read(offered.metadata(), nc.Descriptor(target))
        sides: list[nc.AbstractOperation] = [offered, read]
        rng.shuffle(sides)
        if rng.random() < 0.5:
            sides[0].cancel()
        for operation in sides:
            with contextlib.suppress(nc.OperationCancelledError):
                await operation.wait_for_completion(PATIENCE)
        if read.status is nc.OperationStatus.COMPLETE:
            assert (source == target).all(), "wrong bytes were moved"
        self.done += 1

    def check(self, fault: str, hit: bool, result: str, status: str) -> None:
        """Compare what became of an operation on both sides with what was done to it."""
        self.outcomes[result] += 1
        expected = {"complete"}
        if fault == "cancel" and hit:
            expected |= {"cancelled"}
        elif fault == "drop" and hit:
            expected = {"dropped"}
        elif fault == "alter" and hit:
            expected = {"refused"}
        elif (fault == "withdraw" and hit) or fault in ("withdraw", "kill"):
            expected |= {"lost"}
        assert result in expected, (fault, hit, result, status)
        if result == "complete" and fault not in ("kill", "withdraw"):
            assert status == "DONE", (fault, hit, result, status)
        if result == "cancelled":
            assert status in ("DONE", "STOP"), (fault, hit, result, status)

    async def one(self, kind: str, told: nc.RdmaMetadata, arrays: list[Any], fault: str) -> str:
        """Make one transfer; return what became of it here."""
        local = [nc.Descriptor(array) for array in arrays]
        try:
            if kind == "readable":
                operation: Any = await self.connector.begin_read(told, local, timeout=PATIENCE)
            else:
                operation = await self.connector.begin_write(local, told, timeout=PATIENCE)
            if fault == "drop":
                return "dropped"
            if fault == "cancel":
                operation.cancel()
            await operation.wait_for_completion(PATIENCE)
        except (nc.AuthenticationError, nc.MetadataError):
            return "refused"
        except nc.OperationCancelledError:
            return "cancelled"
        except LOST as error:
            if isinstance(error, TimeoutError):
                raise
            return "lost"
        return "complete"

    def altered(self, told: nc.RdmaMetadata) -> nc.RdmaMetadata:
        """Return metadata with something changed, as somebody might who has not the key."""
        fields = told.model_dump()
        which = self.rng.choice(("nixl_metadata", "notification_key", "descriptors"))
        if which == "descriptors":
            item = fields["descriptors"][0]
            item[self.rng.choice(("ptr", "size"))] += 64
        else:
            # Not at the end, where base64 has bits that mean nothing.
            at = self.rng.randrange(8, len(fields[which]) - 4)
            old = fields[which][at]
            fields[which] = (
                fields[which][:at] + ("A" if old != "A" else "B") + fields[which][at + 1 :]
            )
        return nc.RdmaMetadata.model_validate(fields)

    async def settle(self, descriptors: int) -> dict[str, int]:
        """Wait until everything is given back; return what the process holds then.

        UCX closes the sockets of dead peers in its own time: no more `descriptors` than these are
        waited for, too.
        """
        end = time.monotonic() + PATIENCE
        while True:
            if not any(held(self.connector).values()):
                break
            assert time.monotonic() < end, [str(item) for item in self.connector.operations()]
            await asyncio.sleep(0.05)
        gc.collect()
        peers = self.connector.stats()["peers"]
        while True:
            seen = footprint() | held(self.connector)
            seen |= {name: peers[name] for name in ("connections", "reloads")}
            if seen["descriptors"] <= descriptors or time.monotonic() > end:
                return seen
            await asyncio.sleep(0.1)

    async def run(self, seconds: float, operations: int) -> dict[str, Any]:
        """Make traffic for so long, or so many operations."""
        began = time.monotonic()

        def until(part: float) -> Any:
            return lambda: (
                self.done >= part * operations
                if operations
                else time.monotonic() >= began + part * seconds
            )

        seen = []
        for part in (0.3, 0.65, 1.0):
            await asyncio.gather(*(self.serve(i, until(part)) for i in range(PEERS)))
            most = seen[0]["ours"]["descriptors"] + SOCKETS if seen else 1 << 20
            ours = await self.settle(most)
            steady = self.peers[STEADY]
            assert steady is not None
            seen.append({"ours": ours, "theirs": await self.on_thread(steady.do, "footprint")})
        return {
            "seconds": round(time.monotonic() - began, 1),
            "operations": self.done,
            "bytes": self.moved,
            "rounds": self.injected,
            "outcomes": self.outcomes,
            "peers": self.connector.stats()["peers"],
            "held": seen,
        }


def main() -> None:
    """Make traffic, and print what came of it."""
    parser = argparse.ArgumentParser(prog="soak.py", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--operations", type=int, default=0, help="in place of a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--faults", type=float, default=0.2, help="part of the rounds (%(default)s)"
    )
    options = parser.parse_args()
    soak = Soak(options.seed, options.faults)
    try:
        told = asyncio.run(soak.run(options.seconds, options.operations))
    finally:
        for peer in soak.peers:
            if peer is not None:
                peer.end()
        soak.executor.shutdown()
        soak.connector.close_blocking()
    print(json.dumps(told, indent=2))
    for side in ("ours", "theirs"):
        first, *_, last = (each[side] for each in told["held"])
        for figure, room in ROOM.items():
            assert last[figure] <= first[figure] + room, f"{figure} grow: {side}"
        assert last["registrations"] == 0, side
        # A connection is made again for a peer that was killed, and hardly ever for anything else.
        killed = told["rounds"]["kill"] if side == "ours" else 0
        assert last["reloads"] <= killed + RELOADS, f"connections are made again: {side}"


if __name__ == "__main__":
    main()

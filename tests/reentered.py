"""Uses connectors at every point of their own code, as signal handlers may. See test_signals.py.

    python reentered.py lines transfer
    python reentered.py opcodes register 7
    python reentered.py objects register

A trace function counts the lines of the package that a piece of work comes to, or the instructions.
The work is done again and again, and the connectors are used at the first of these points, then at
the second (or the eighth), and so on. For objects the garbage collector does so, in a finalizer,
when the work has made so many: in older Pythons that may be inside a function of C. What is used
there works, or is refused with an error of the package; the work goes on as if nothing had
happened; and NIXL has registered what the package says that it has.
"""

from __future__ import annotations

import collections
import faulthandler
import gc
import itertools
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from holding import held

import nixl_connect as nc
from nixl_connect._native import envelope
from nixl_connect.peers import lanes

PATIENCE = 20.0
PACKAGE = str(Path(nc.__file__).parent)
lanes.COUNT = 2


class Point:
    """Counts the points that work comes to, and does something at one of them.

    Parameters
    ----------
    number : int
        Which one, from 1; 0 for none.
    do : callable
        What to do there.
    opcodes : bool
        Whether each instruction is a point, or each line.
    """

    def __init__(self, number: int, do: Any, *, opcodes: bool) -> None:
        self.number = number
        self.do = do
        self.opcodes = opcodes
        self.count = 0
        self.where = ""

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = self.opcodes
        if event == ("opcode" if self.opcodes else "line"):
            self.count += 1
            if self.count == self.number:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self.do()
        return self._trace

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)


class Garbage:
    """Has a finalizer do something when so many objects have been made, as `Point`.

    Parameters
    ----------
    number, do
        As for `Point`.
    """

    def __init__(self, number: int, do: Any) -> None:
        self.number = number
        self.do = do
        self.count = 0
        self.where = "a finalizer"

    def _finalize(self) -> None:
        self.count = self.number + 1
        self.do()

    def __enter__(self) -> None:
        gc.collect()
        Cycle(self._finalize)
        gc.set_threshold(self.number)
        gc.enable()

    def __exit__(self, *exception: object) -> None:
        gc.disable()


class Cycle:
    """Garbage with a finalizer."""

    def __init__(self, finalize: Any) -> None:
        self.me = self
        self.finalize = finalize

    def __del__(self) -> None:
        self.finalize()


class Work:
    """What is interrupted, and what is done then.

    Parameters
    ----------
    name : str
        Which of the methods is interrupted.
    """

    def __init__(self, name: str) -> None:
        self.do = getattr(self, name)
        self.meets = name in ("meet", "share")
        self.shares = name == "share"
        self.source = bytearray(b"some bytes")
        self.target = bytearray(10)
        self.large = bytearray(lanes.LEAST_BYTES)
        self.counts: collections.Counter[str] = collections.Counter()
        self.open()

    def open(self) -> None:
        """Open two connectors, which have not met."""
        self.owner, self.mover = nc.Connector(quarantine=0), nc.Connector(quarantine=0)
        for connector in (self.owner, self.mover):
            connector._open()

    def close(self) -> None:
        """Close them, with nothing left."""
        for connector in (self.owner, self.mover):
            end = time.monotonic() + PATIENCE
            while any(held(connector).values()) or len(engine(connector).registry):
                assert time.monotonic() < end, (held(connector), connector.operations())
                gc.collect()
                time.sleep(0.001)
            connector.close_blocking()

    # --- what is interrupted ----------------------------------------------------------------

    def transfer(self) -> None:
        """A whole transfer; and the same within one connector."""
        for mover in (self.mover, self.owner):
            self._move(mover, self.source, self.target)

    def meet(self) -> None:
        """The first transfer between two connectors."""
        self._move(self.mover, self.source, self.target)

    def share(self) -> None:
        """The first large transfer, for which lanes are opened."""
        self._move(self.mover, self.large, bytearray(len(self.large)))

    def register(self) -> None:
        """Registrations by hand, and operations that share them."""
        descriptor = nc.Descriptor(self.source)
        descriptor.register_memory(self.owner)
        self.owner.create_readable_blocking(nc.Descriptor(self.source)).cancel()
        descriptor.deregister_with_connector(self.owner._connection)
        self.owner.create_readable_blocking([descriptor, nc.Descriptor(self.target)]).cancel()

    def prepare(self) -> None:
        """A prepared transfer, made twice."""
        for mover in (self.mover, self.owner):
            offered = self.owner.create_readable_blocking(nc.Descriptor(self.source))
            with mover.prepare_read_blocking(
                offered.metadata(), nc.Descriptor(self.target)
            ) as prepared:
                prepared.transfer_blocking(PATIENCE)
                prepared.transfer_blocking(PATIENCE)
            offered.wait_for_completion_blocking(PATIENCE)

    def _move(self, mover: nc.Connector, source: bytearray, target: bytearray) -> None:
        offered = self.owner.create_readable_blocking(nc.Descriptor(source))
        read = mover.begin_read_blocking(offered.metadata(), nc.Descriptor(target))
        read.wait_for_completion_blocking(PATIENCE)
        offered.wait_for_completion_blocking(PATIENCE)
        assert target == source

    # --- what is done then ------------------------------------------------------------------

    def use(self) -> None:
        """Use the connectors, for the same memory."""
        self.attempt(lambda: self.owner.create_readable_blocking(nc.Descriptor(self.source)))
        self.attempt(lambda: self.mover.create_writable_blocking(nc.Descriptor(self.target)))
        for mover in (self.owner, self.mover):
            self.attempt(lambda mover=mover: self._move(mover, self.source, bytearray(10)))
        self.attempt(self._register)
        if self.shares:
            self.attempt(lambda: self._move(self.mover, self.large, bytearray(len(self.large))))
        for connector in (self.owner, self.mover):
            connector.stats(), connector.peers(), connector.operations()

    def _register(self) -> None:
        descriptor = nc.Descriptor(self.source)
        descriptor.register_memory(self.owner)
        descriptor.deregister_with_connector(self.owner._connection)

    def attempt(self, call: Any) -> None:
        """Do something that may be refused; and that is all."""
        try:
            call()
        except nc.StateError as error:
            if "interrupted" not in str(error):
                raise
            self.counts["refused"] += 1
        else:
            self.counts["served"] += 1

    # --- what is true whatever was done -----------------------------------------------------

    def check(self) -> None:
        """NIXL has each region once, and those that the package says."""
        for connector in (self.owner, self.mover):
            its = engine(connector)
            end = time.monotonic() + PATIENCE
            while True:  # the reaper may be at it
                sections = envelope.parse(its._agent.metadata()).sections
                rows = [(region[0], region[1]) for part in sections for region in part.regions]
                assert len(rows) == len(set(rows)), rows
                if len(rows) == len(its.registry) + its.registry.left:
                    break
                assert time.monotonic() < end, (rows, len(its.registry), its.registry.left)


def engine(connector: nc.Connector) -> Any:
    """Return what a connector stands on."""
    return connector._connection._engine


def main() -> None:
    """Interrupt some work at every point."""
    kind, name = sys.argv[1:3]
    step = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    work = Work(name)
    if not work.meets:
        work.use()
    for number in itertools.chain((0,), itertools.count(1, step)):
        faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
        errors: list[BaseException] = []

        def use(errors: list[BaseException] = errors) -> None:
            try:
                work.use()
            except BaseException as error:
                errors.append(error)

        if work.meets:
            work.close()
            work.open()
        if kind == "objects":
            gc.disable()
            point: Any = Garbage(number, use)
        else:
            point = Point(number, use, opcodes=kind == "opcodes")
        try:
            with point:
                work.do()
            if errors:
                raise errors[0]
            work.check()
        except BaseException:
            print(f"{name}, point {number}, {point.where}", file=sys.stderr)
            raise
        if number > point.count:
            break
    faulthandler.cancel_dump_traceback_later()
    work.close()
    print(f"points={number} " + " ".join(f"{name}={n}" for name, n in work.counts.items()))


main()

"""The table: what this library aims at, and whether a run shows it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from harness.measure import FIRST, Measurement

MiB = 1 << 20
OURS = "nixl_connect"


class Row(NamedTuple):
    """One line of the table."""

    what: str
    target: str
    value: str
    met: bool | None
    """None where it was not measured."""
    limit: str
    """What keeps it from being met, if it is missed."""


def table(measured: Measurement, imports: dict[str, float]) -> list[Row]:
    """Return every target with what was measured."""
    rows = []
    for what, target, evaluate, limit in _TARGETS:
        try:
            value, met = evaluate(measured, imports)
        except KeyError as error:
            value, met = f"not measured ({error.args[0]})", None
        rows.append(Row(what, target, value, met, limit))
    return rows


def _median(measured: Measurement, case: str, subject: str, figure: str) -> float:
    return float(measured.results[case][subject]["figures"][figure]["median"])


def _p99(measured: Measurement, case: str, subject: str, figure: str) -> float:
    return float(measured.results[case][subject]["figures"][figure]["p99"])


def us(seconds: float) -> str:
    """Return a duration in text, with three digits or so."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= 0.9995 * scale:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{_digits(seconds * 1e6)} us"


def _digits(number: float) -> str:
    """Return a number with three digits, or all that are before the point."""
    return f"{number:.0f}" if abs(number) >= 999.5 else f"{number:.3g}"


def _compare(
    case: str, figure: str, other: str, limit: float, *, other_figure: str | None = None
) -> Callable[..., tuple[str, bool]]:
    """Make a check that a figure is at most `limit` times another subject's."""

    def evaluate(measured: Measurement, _: Any) -> tuple[str, bool]:
        mine = _median(measured, case, OURS, figure)
        theirs = _median(measured, case, other, other_figure or figure)
        ratio = mine / theirs
        text = f"{us(mine)} : {us(theirs)} = "
        text += f"{ratio:.2f} x" if limit >= 0.5 else f"1/{1 / ratio:.0f}"
        return text, ratio <= limit

    return evaluate


def _pair(measured: Measurement, _: Any) -> tuple[str, bool]:
    ratios = {}
    for case in measured.results:
        if case.startswith("pair "):
            mine, floor = (_median(measured, case, name, "pair") for name in (OURS, "floor"))
            ratios[f"{case.removeprefix('pair ')} {us(mine)} : {us(floor)}"] = mine / floor
    if not ratios:
        raise KeyError("pair")
    text = "; ".join(f"{what} = {ratio:.2f} x" for what, ratio in ratios.items())
    return text, max(ratios.values()) <= 2.0


def _cycles(limit: float, **cases: str) -> Callable[..., tuple[str, bool]]:
    """Make a check that cycles take at most `limit` times those of NIXL's Python API."""

    def evaluate(measured: Measurement, _: Any) -> tuple[str, bool]:
        texts, ratios = [], []
        for what, case in cases.items():
            mine, theirs = (_median(measured, case, name, "cycle") for name in (OURS, "nixl"))
            ratios.append(mine / theirs)
            texts.append(f"{what.replace('_', ' ')} {us(mine)} : {us(theirs)} = {ratios[-1]:.2f} x")
        return "; ".join(texts), max(ratios) <= limit

    return evaluate


def _named(case: str, limit: float) -> Callable[..., tuple[str, bool]]:
    """Make a check that cycles of named arrays cost little over plain descriptors."""

    def evaluate(measured: Measurement, _: Any) -> tuple[str, bool]:
        mine, plain = (_median(measured, case, name, "cycle") for name in (OURS, "plain"))
        return f"{us(mine)} : {us(plain)} = {mine / plain:.2f} x", mine <= limit * plain

    return evaluate


def _fan(measured: Measurement, _: Any) -> tuple[str, bool]:
    mine, nixl, ucxx = (
        _median(measured, "fan", name, "operation") for name in (OURS, "nixl", "ucxx")
    )
    text = f"{us(mine)} : {us(nixl)} = 1/{nixl / mine:.1f}; : {us(ucxx)} = 1/{ucxx / mine:.1f}"
    return text, nixl >= 15 * mine and ucxx >= 8 * mine


def _told(measured: Measurement, _: Any) -> tuple[str, bool]:
    median, p99 = (f(measured, "fresh", OURS, "told") for f in (_median, _p99))
    return f"{us(median)} / {us(p99)}", median <= 100e-6 and p99 <= 1e-3


def _bandwidth(case: str, other: str, least: float) -> Callable[..., tuple[str, bool]]:
    def evaluate(measured: Measurement, _: Any) -> tuple[str, bool]:
        mine = 256 * MiB / _median(measured, case, OURS, "read")
        theirs = 256 * MiB / _median(measured, case, other, "read")
        text = f"{mine / 1e9:.2f} : {theirs / 1e9:.2f} GB/s = {mine / theirs:.2f} x"
        return text, mine >= least * theirs

    return evaluate


def _stall(measured: Measurement, _: Any) -> tuple[str, bool]:
    sides = [_median(measured, "stall", OURS, side) for side in ("passive", "active")]
    return f"passive {us(sides[0])}, active {us(sides[1])}", max(sides) <= 2e-3


def _pending(measured: Measurement, _: Any) -> tuple[str, bool]:
    few, many = (_median(measured, f"waiting {n}", OURS, "cycle") for n in (64, 4096))
    return f"{us(many)} : {us(few)} = {many / few:.2f} x", many <= 1.3 * few


def _history(measured: Measurement, _: Any) -> tuple[str, bool]:
    cycles = measured.samples["history"][OURS]["cycle"]
    early, late = statistics.median(cycles[20:120]), statistics.median(cycles[-100:])
    cost = measured.results["history"][OURS]["cost"][0]
    grown = max(cost["passive"]["grown"], cost["active"]["grown"]) / MiB
    text = f"{us(late)} : {us(early)} = {late / early:.2f} x; {grown:.1f} MiB"
    return text, late <= 1.1 * early and grown <= 2


def _idle(measured: Measurement, _: Any) -> tuple[str, bool]:
    shares = [_median(measured, f"idle {n}", OURS, "passive") for n in (0, 1)]
    return " / ".join(f"{share:.2%}" for share in shares), shares[0] <= 2e-3 and shares[1] <= 0.03


def _first(_: Measurement, imports: dict[str, float]) -> tuple[str, bool]:
    took = imports[FIRST]
    return us(took), took <= 0.010


def _import(_: Measurement, imports: dict[str, float]) -> tuple[str, bool]:
    took = imports[OURS]
    return us(took), took <= 0.080


def _alone(case: str, first: str, second: str, limits: tuple[float, float]) -> Any:
    def evaluate(measured: Measurement, _: Any) -> tuple[str, bool]:
        took = [_median(measured, case, OURS, figure) for figure in (first, second)]
        met = all(t <= limit for t, limit in zip(took, limits, strict=True))
        return " / ".join(map(us, took)), met

    return evaluate


def _paged(measured: Measurement, _: Any) -> tuple[str, bool]:
    mine = _median(measured, "paged", OURS, "read")
    theirs = _median(measured, "descriptors", "dynamo", "read")
    return f"{us(mine)} : {us(theirs)} = 1/{theirs / mine:.0f}", mine * 50 <= theirs


def _regions(measured: Measurement, _: Any) -> tuple[str, bool]:
    none, many = (_median(measured, "alone", OURS, f"create, {n} others") for n in (0, 1000))
    return f"{us(many)} : {us(none)} = {many / none:.2f} x", many <= 1.2 * none


class _Target(NamedTuple):
    """What this library aims at."""

    what: str
    target: str
    evaluate: Callable[..., tuple[str, bool]]
    limit: str
    """What keeps it from being met; shown where it is missed."""


_SPINNING = "NIXL's Python API, which spins"
_COPY = (
    "The copy, which two threads make at once (record 18), and the processors, which they share "
    "with the other process and all else that runs."
)
_DRIFT = "The machine, which is shared: nothing in the library makes later operations dearer."
_TOLD = (
    "Two processes share two processors with what else runs there: record 35 has how a side that "
    "sleeps is woken."
)
_TABLE = "Rows are read, checked and written once each; the rest is NIXL's work for each of them."

_TARGETS = (
    _Target(
        "8-byte read, fresh buffers: parse, begin_read, wait",
        "at most 4 x the floor's transfer",
        _compare("fresh", "read", "floor", 4.0),
        "The interpreter and the kernel's messages and wake-ups, which the floor has none of: "
        "decision record 33 has the parts.",
    ),
    _Target(
        "8-byte pair, both ends in one process: create, JSON, parse, read, both told, released",
        "at most 2 x the floor's same stages (stretch: 1.5 x)",
        _pair,
        "Most of what it takes above the floor is the interpreter, for 17 to 47 calls "
        "(`tests/operations/test_calls.py`), and this library's native code: decision record "
        "33. Such code takes up to 1.8 times as long from one second to the next on this "
        "machine, plain loops of Python too, where the floor, most of it the kernel's code, "
        "takes 1.05: rows that are near the target miss it then. NIXL's own Python API, "
        "spinning, is in the cases `pair` below.",
    ),
    _Target(
        "whole 8-byte cycle, both asyncio: create, JSON over a socket, parse, read, both told",
        "at least 90 x faster than the reference",
        _compare("fresh", "cycle", "dynamo", 1 / 90),
        "The reference took 16 to 20 ms on the machine of the target, and less here. A third of "
        "this library's cycle is the message's way through two event loops, which every subject "
        "pays. " + _TOLD,
    ),
    _Target(
        f"cycles of 8 bytes, beside {_SPINNING}",
        "at most 0.91 x",
        _cycles(0.91, fresh="fresh", used="size 8"),
        _TOLD,
    ),
    _Target(
        f"cycles of 4 and 256 KiB, beside {_SPINNING}",
        "at most 1 x",
        _cycles(1.0, **{"4 KiB": "size 4096", "256 KiB": f"size {256 << 10}"}),
        _TOLD,
    ),
    _Target(
        f"cycles of 16 and 256 MiB, beside {_SPINNING}",
        "at most 1 x",
        _cycles(1.0, **{"16 MiB": f"size {16 * MiB}", "256 MiB": f"size {256 * MiB}"}),
        "The copy is made by two threads, so that no event loop waits for it: they are woken, and "
        "wake the one that waits. NIXL's Python API copies on the thread that calls, which "
        "stands still meanwhile (`stall` below).",
    ),
    _Target(
        f"cycles of 10,000 descriptors of 16 KiB, beside {_SPINNING}",
        "at most 0.77 x",
        _cycles(0.77, **{"10,000": "10000 of 16 KiB"}),
        _TABLE,
    ),
    _Target(
        f"100,000 descriptors in one read, beside {_SPINNING}",
        "at most 0.67 x",
        _compare("descriptors", "read", "nixl", 1 / 1.5),
        _TABLE,
    ),
    _Target(
        f"512 operations at once, for each, beside {_SPINNING}",
        "at most 0.67 x",
        _compare("burst 512", "operation", "nixl", 1 / 1.5),
        "The two sides work in turn: the passive side has made all before the active one begins. "
        "Half of what is left is NIXL's, for 512 registrations, requests and notifications.",
    ),
    _Target(
        "8 passive sides at once, beside NIXL's Python API and ucxx",
        "at least 15 x and 8 x faster",
        _fan,
        "What nine processes compute for an operation, on two processors. Those that spin take "
        "what the scheduler gives them, some 4 ms a turn, whatever they compute.",
    ),
    _Target(
        "the passive side's waiter runs after the mover is done (median / p99)",
        "100 us / 1 ms",
        _told,
        "The wake-ups of a thread and of an event loop, on a machine that is shared.",
    ),
    _Target(
        "256 MiB read, the same pages",
        "at least 0.97 x the floor's bandwidth",
        _bandwidth(f"size {256 * MiB}", "floor", 0.97),
        _COPY,
    ),
    _Target(
        "256 MiB read over TCP",
        "at least 0.95 x raw NIXL",
        _bandwidth(f"tcp {256 * MiB}", "nixl", 0.95),
        "UCX over TCP, which both sides' threads have to serve.",
    ),
    _Target(
        "longest stall of an event loop during a 256 MiB read",
        "2 ms",
        _stall,
        "The scheduler. Nothing of the copy runs on the loop's thread, but the copy and the other "
        "process's loop share two virtual processors of one core (record 18).",
    ),
    _Target(
        "a prepared 8-byte transfer posted again and waited for, blocking",
        "at most 1.4 x the floor",
        _compare("prepared", "repost", "floor", 1.4),
        "One native call, which gives up the GIL and takes it again, around what the floor does.",
    ),
    _Target(
        "300 named arrays, 534 MiB in all, fetched into a pool",
        "at most 1.05 x plain descriptors, with kept memory",
        _named("arrays 300 of 534 MiB", 1.05),
        "Names, types and shapes of each array, made and checked in Python on both sides: a "
        "millisecond. The rest is two copies of half a gigabyte, of which one takes a fifth longer "
        "now and then.",
    ),
    _Target(
        "one named array of 8 bytes, fetched into a pool",
        "at most 1.3 x plain descriptors, with kept memory",
        _named("arrays 1 of 8 B", 1.3),
        "Names, types and shapes, made and checked in Python on both sides, and the lease.",
    ),
    _Target(
        "512 operations at once, per operation",
        "at least 50 x faster than the reference",
        _compare("burst 512", "operation", "dynamo", 1 / 50),
        "The target is less than what NIXL's own Python API takes, which spins. One operation of "
        "many descriptors costs a tenth of that for each, and less.",
    ),
    _Target(
        "cost of an operation with 4,096 pending over 64 pending", "at most 1.3 x", _pending, _DRIFT
    ),
    _Target(
        "cost of operation 20,000 over operation 200; memory grown",
        "at most 1.1 x; 2 MiB",
        _history,
        _DRIFT,
    ),
    _Target(
        "idle CPU, nothing pending / one operation waiting",
        "0.2% / 3% of a core",
        _idle,
        "A look at NIXL about every millisecond, while something waits. What that costs differs "
        "from run to run: record 3.",
    ),
    _Target(
        "100,000 descriptors read in one operation: parse, begin_read, wait",
        "at least 50 x faster than the reference",
        _compare("descriptors", "read", "dynamo", 1 / 50),
        _TABLE,
    ),
    _Target(
        "100,000 blocks of 64 bytes in any order, as one operation, likewise",
        "at least 50 x faster than the reference with 100,000 of 8 bytes",
        _paged,
        _TABLE,
    ),
    _Target(
        "create with metadata, 1,000 other regions live over none",
        "as with none",
        _regions,
        "NIXL's list of regions, all of which each deregistration goes through "
        "(`nixlSecDescList::remDescs`). This package looks at none of them one by one.",
    ),
    _Target(
        "JSON of 1 / 10,000 descriptors, out and in",
        "15 us / 8 ms",
        _alone("alone", "JSON, 1", "JSON, 10000", (15e-6, 8e-3)),
        _TABLE,
    ),
    _Target(
        "import",
        "80 ms",
        _import,
        "A quarter of it is msgspec with what it imports (typing_extensions, inspect, decimal, "
        "datetime), a tenth logging; the rest is this package's own modules.",
    ),
    _Target(
        "longest stall of a loop as a process begins its first operation, least of nine",
        "10 ms",
        _first,
        "Python that the opening thread runs, in turns of 5 ms; and, where there is an RDMA device "
        "or a GPU, what UCX does to memory functions (decision record 37).",
    ),
)

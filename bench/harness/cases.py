"""What a run measures: which workloads, with which arguments, on which subjects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ALL = ("floor", "nixl_connect", "nixl", "dynamo", "ucxx", "zmq", "shm")
# Of named arrays: who has them, the same by hand over the same library, and who else moves them.
NAMED = ("nixl_connect", "plain", "nixl", "ucxx", "zmq", "shm", "pickle5", "safetensors")
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
TCP = {"UCX_TLS": "tcp"}
FORMS = ("asyncio", "blocking")


@dataclass(frozen=True)
class Case:
    """One workload with its arguments.

    Parameters
    ----------
    name : str
        Unique.
    workload : str
        One of `workloads.WORKLOADS`.
    arguments : dict
        Its arguments.
    subjects : tuple of str
        Who is measured.
    turns : int
        How often the subjects take turns.
    passives : int
        Passive processes of a subject.
    environment : dict of str to str
        Variables of the subjects' processes.
    slow : int
        By how much to divide the rounds of subjects that take milliseconds for an operation.
    """

    name: str
    workload: str
    arguments: dict[str, Any]
    subjects: tuple[str, ...] = ALL
    turns: int = 5
    passives: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    slow: int = 20


def _rounds(size: int) -> int:
    """Return how many transfers of a size take some tenths of a second."""
    return max(3, min(300, 256 * MiB // size))


def cases(*, quick: bool) -> list[Case]:
    """Return what to measure; with `quick` less of all, and nothing that takes long."""
    sizes = [8, 4 * KiB, 256 * KiB, 16 * MiB, 256 * MiB]
    if not quick:
        sizes = [8, 64, 512, *(4 * KiB * 8**i for i in range(6)), 256 * MiB, GiB]
    pending = [1, 16, 256, 512] if quick else [1, 16, 64, 256, 512, 4096]
    without_floor = ALL[1:]
    # The reference needs minutes for thousands at once.
    no_reference = tuple(name for name in without_floor if name != "dynamo")
    turns = 3 if quick else 8
    # A shared machine is slower for seconds at a time. What takes milliseconds and is compared has
    # many short turns, so that such a time falls on all subjects.
    many = 4 * turns
    measured = [
        Case("fresh", "cycle", {"rounds": 300, "size": 8, "memory": "fresh"}, turns=many),
        Case("new", "cycle", {"rounds": 100, "size": 8, "memory": "new"}, turns=turns),
        *(
            Case(f"pair {form}, {memory} memory", "pair",
                 {"rounds": 300, "size": 8, "memory": memory, "form": form},
                 ("floor", "nixl_connect", "nixl"), turns=many)
            for form in FORMS
            for memory in ("used", "new")
        ),
        *(
            Case(f"size {size}", "cycle", {"rounds": _rounds(size), "size": size, "memory": "same"},
                 turns=many)
            for size in sizes
        ),
        Case("sleeping 8", "sleeping", {"rounds": 300, "size": 8}, ("floor",), turns=turns),
        *(
            Case(f"burst {count}", "burst", {"rounds": max(1, 1024 // count), "size": 8,
                 "pending": count}, without_floor if count < 4096 else no_reference, turns=many)
            for count in pending
        ),
        *(
            Case(f"waiting {count}", "waiting", {"rounds": 200, "size": 8, "pending": count},
                 ("nixl_connect", "dynamo") if count == 64 else ("nixl_connect",), turns=turns)
            for count in (64, 4096)
        ),
        Case("10000 of 16 KiB", "cycle",
             {"rounds": 3, "size": 16 * KiB, "count": 10_000, "memory": "same"},
             ("floor", "nixl_connect", "nixl", "dynamo"), turns=2),
        Case("descriptors", "cycle", {"rounds": 2, "size": 8, "count": 100_000, "memory": "same"},
             ("floor", "nixl_connect", "nixl", "dynamo"), turns=1 if quick else 2),
        Case("paged", "paged", {"rounds": 3, "size": 64, "count": 100_000},
             ("nixl_connect", "nixl"), turns=turns),
        Case("prepared", "prepared", {"rounds": 2000, "size": 8},
             ("floor", "nixl_connect", "nixl"), turns=turns),
        Case("arrays 1 of 8 B", "named", {"rounds": 200, "count": 1, "size": 8}, NAMED,
             turns=2 * turns),
        Case("arrays 300 of 534 MiB", "named", {"rounds": 3, "count": 300, "size": 534 * MiB},
             NAMED, turns=2 * turns),
        Case("once", "once", {"rounds": 4 if quick else 8}, ("nixl_connect", "nixl"), turns=2),
        Case("stall", "stall", {"rounds": 5, "size": 256 * MiB}, without_floor, turns=2, slow=1),
        *(
            Case(f"idle {count}", "idle", {"seconds": 2.0 if quick else 5.0, "pending": count},
                 without_floor, turns=3)
            for count in (0, 1)
        ),
        Case("history", "cycle", {"rounds": 20_400, "size": 8, "memory": "same", "every": 10},
             ("nixl_connect",), turns=1),
        Case("alone", "alone", {"rounds": 500}, ("nixl_connect",), turns=turns),
        Case("fan", "fan", {"rounds": 100, "size": 8}, without_floor, turns=2, passives=8),
        *(
            Case(f"tcp {size}", "cycle", {"rounds": _rounds(size) // 2 + 1, "size": size,
                 "memory": "same"}, ("floor", "nixl_connect", "nixl"), turns=turns,
                 environment=TCP)
            for size in (8, 256 * MiB)
        ),
    ]  # fmt: skip
    if not quick:
        measured.append(
            Case("endurance", "cycle", {"rounds": 100_000, "size": 8,
                 "memory": "fresh", "every": 100},
                 ("nixl_connect",), turns=1)
        )  # fmt: skip
    return measured

"""Explores all that may become of an operation, by the table; tells of the first broken promise.

    python -m life.explorer

Run by `make model`. For each number of transfers and of movers all states are visited, in the order
of how few steps lead to them, so that what is found is a shortest way there.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from typing import NamedTuple

from life import promises, table
from life.states import (
    ASSUMPTIONS,
    COMPLETE,
    FREE,
    KEPT,
    NONE,
    RUNS,
    UNINITIALIZED,
    Move,
    Offer,
    State,
    Status,
)

# Transfers that complete an offer (0: none), whether they write, and how many movers there are.
# And how much may go wrong, in all; None: anything.
CASES = [
    (1, False, 1, None),
    (1, True, 1, None),
    (2, False, 2, 2),
    (2, True, 2, 2),
    (0, False, 2, 2),
    (0, True, 2, 2),
]
# What counts as that.
ADVERSE = {
    *("cut", "lose", "double", "fail", "drain_over"),
    *("kill_offer", "kill_move", "close_offer", "close_move"),
}


class Found(NamedTuple):
    """A promise that is broken, and what led to that."""

    promise: str
    way: list[str]
    state: State


class Explored(NamedTuple):
    """What an exploration has seen."""

    states: int
    steps: int
    edges: set[tuple[str, str, Status, Status]]
    found: Found | None


def explore(first: State, most: int | None = None, dropped: str = "") -> Explored:
    """Visit all states that follow from one.

    Parameters
    ----------
    first : State
        Where to begin.
    most : int or None
        How often something adverse may happen; by default, always.
    dropped : str
        An assumption that is not made.
    """
    came: dict[State, tuple[State, str] | None] = {_key(first): None}
    # States are met in the order of how much has gone wrong on the way, and then of its length.
    waiting = deque([first])
    later: list[tuple[State, State, str]] = []
    wrong = steps = 0
    edges = set()
    while waiting:
        state = waiting.popleft()
        key = _key(state)
        promise = promises.broken(state) or _stuck(state)
        if promise:
            return Explored(len(came), steps, edges, Found(promise, _way(came, key), state))
        for rule, i, then in table.successors(state, dropped):
            steps += 1
            edges |= _changes(rule, state, then)
            name = f"{rule} {i}" if len(first.moves) > 1 else rule
            promise = _turned_back(state, then)
            if promise:
                way = [*_way(came, key), name]
                return Explored(len(came), steps, edges, Found(promise, way, then))
            if _key(then) in came:
                continue
            if rule in ADVERSE:
                later.append((then, key, name))
            else:
                came[_key(then)] = key, name
                waiting.append(then)
        if not waiting and (most is None or wrong < most):
            wrong += 1
            for then, key, name in later:
                if _key(then) not in came:
                    came[_key(then)] = key, name
                    waiting.append(then)
            later = []
    return Explored(len(came), steps, edges, None)


def _key(state: State) -> State:
    """Return the same for states that differ only in which of those who move is which."""
    return state._replace(moves=tuple(sorted(state.moves)))


def _way(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    """Return the rules that led to a state."""
    way = []
    while (step := came[state]) is not None:
        state, name = step
        way.append(name)
    return way[::-1]


def _changes(name: str, state: State, then: State) -> set[tuple[str, str, Status, Status]]:
    """Return how a step changes statuses: the side, the rule, from and to."""
    pairs = [("passive", state.offer, then.offer)]
    pairs += [("active", old, new) for old, new in zip(state.moves, then.moves, strict=True)]
    return {
        (side, name, old.status, new.status)
        for side, old, new in pairs
        if old.status is not new.status
    }


def _turned_back(state: State, then: State) -> str:
    """Return what a step does that none may: change what is final, or what is free."""
    sides = [(state.offer, then.offer), *zip(state.moves, then.moves, strict=True)]
    for old, new in sides:
        if old.status >= COMPLETE and (old.status, old.reason) != (new.status, new.reason):
            return "a final status changes"
        if old.memory == FREE and new.memory not in (FREE, NONE):
            return "memory that was free is held again"
    return ""


def _stuck(state: State) -> str:
    """Return what would wait for ever, though its side did all it could."""
    # Nothing of the others matters for that.
    alone = state._replace(moves=())
    return _offer_stuck(alone) or next(filter(None, map(_move_stuck, state.moves)), "")


@functools.cache
def _offer_stuck(alone: State) -> str:
    if alone.offer.process != RUNS:
        return ""
    for end in _ends(alone, None, with_nixl=True):
        if end.offer.status < COMPLETE:
            return "an offer waits for ever"
        if end.offer.memory != FREE:
            return "an offer's memory is held for ever"
    return ""


@functools.cache
def _move_stuck(move: Move) -> str:
    if move.process != RUNS or move.status == UNINITIALIZED:
        return ""
    alone = State(1, False, Offer(), (move,))
    for with_nixl in (False, True):
        for end in _ends(alone, 0, with_nixl=with_nixl):
            there = end.moves[0]
            if there.status < COMPLETE:
                return "a transfer waits for ever"
            if with_nixl and not there.said:
                return "the end of a transfer is not told"
            if with_nixl and there.memory not in (FREE, KEPT):
                return "a transfer's memory is held for ever"
    return ""


def forget() -> None:
    """Forget what has been found of the table: it has changed."""
    _offer_stuck.cache_clear()
    _move_stuck.cache_clear()


def _ends(state: State, i: int | None, *, with_nixl: bool) -> set[State]:
    """Return where one side comes to rest by itself, on each of its ways.

    Those from which it comes to no rest, since the way leads round and round, are among them.
    """
    ends, seen, waiting = set(), {state}, [state]
    before: dict[State, set[State]] = {state: set()}
    while waiting:
        here = waiting.pop()
        nexts = set(table.own_ways(here, i, with_nixl=with_nixl)) - {here}
        if not nexts:
            ends.add(here)
        for then in nexts:
            before.setdefault(then, set()).add(here)
        waiting += nexts - seen
        seen |= nexts
    resting, waiting = set(ends), list(ends)
    while waiting:
        fresh = before[waiting.pop()] - resting
        resting |= fresh
        waiting += fresh
    return ends | (seen - resting)


def counterexample(assumption: str) -> Found | None:
    """Return how a promise is broken where something is not assumed."""
    for transfers, written, movers in ((1, False, 1), (1, False, 2), (2, False, 2)):
        found = explore(table.first(transfers, written, movers), 1, assumption).found
        if found is not None:
            return found
    return None


def main() -> int:
    """Explore all cases, and each assumption's absence; print what there is."""
    wrong = 0
    for transfers, written, movers, most in CASES:
        began = time.monotonic()
        seen = explore(table.first(transfers, written, movers), most)
        print(
            f"{transfers or 'any'} transfers, {'written' if written else 'read'}, {movers} movers, "
            f"{'any' if most is None else most} faults: {seen.states:,} states, "
            f"{seen.steps:,} steps, {time.monotonic() - began:.1f} s",
            flush=True,
        )
        if seen.found:
            wrong += 1
            print(f"  BROKEN: {seen.found.promise}\n  {' > '.join(seen.found.way)}")
    for assumption, says in ASSUMPTIONS.items():
        found = counterexample(assumption)
        print(f"not assumed that {says}:")
        if found is None:
            wrong += 1
            print("  nothing is broken: the assumption is not needed")
        else:
            print(f"  {found.promise}: {' > '.join(found.way)}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

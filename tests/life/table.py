"""The life of an operation, on both sides, as a table of rules.

A state is all that matters of one offer, of the transfers that others make of it, of NIXL's
requests and of the messages that are on their way. A rule says when something can happen and what
it does. Who does it is its actor:

- ``program``: a call of the program;
- ``library``: this library does it by itself, as soon as it can;
- ``clock``: a deadline or a quarantine passes;
- ``nixl``: a request goes on, or NIXL reports something;
- ``network``: a message arrives, is lost, or comes twice;
- ``world``: a process is killed.

Nothing says when. A process that is stopped is one whose next step is late, as any step may be.

What is assumed of the world is in `ASSUMPTIONS`, each of which rules may ask for: without it the
promises of `life.promises` do not hold, and the explorer finds how they are broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from life.states import (
    ARRIVED,
    CANCELLED,
    COMPLETE,
    ERRORED,
    FREE,
    GONE,
    HELD,
    IN_PROGRESS,
    INITIALIZED,
    KEPT,
    LOST,
    MOVING,
    NONE,
    QUARANTINED,
    RUNS,
    SENT,
    STRAYING,
    UNINITIALIZED,
    UNSENT,
    Move,
    Offer,
    State,
    Status,
    may_touch,
    touches,
)


class Rule(NamedTuple):
    """What may happen, of the offer or of one of the moves."""

    name: str
    actor: str
    of_offer: bool
    when: Callable[[State, int], bool]
    then: Callable[[State, int], State]
    assumes: tuple[str, ...] = ()


RULES: dict[str, Rule] = {}


def _rule(
    actor: str,
    when: Callable[[State, int], bool],
    *,
    of_offer: bool = False,
    assumes: tuple[str, ...] = (),
) -> Callable[[Callable[[State, int], State]], Callable[[State, int], State]]:
    """Add a rule, whose name is that of the function that says what it does."""

    def add(then: Callable[[State, int], State]) -> Callable[[State, int], State]:
        name = then.__name__
        assert name not in RULES
        RULES[name] = Rule(name, actor, of_offer, when, then, assumes)
        return then

    return add


def _offer(state: State, **changes: object) -> State:
    return state._replace(offer=state.offer._replace(**changes))


def _move(state: State, i: int, **changes: object) -> State:
    moves = list(state.moves)
    moves[i] = moves[i]._replace(**changes)
    return state._replace(moves=tuple(moves))


# The offer.


def _waits(state: State, _: int = 0) -> bool:
    return state.offer.status < COMPLETE and state.offer.process == RUNS


def _ended(state: State, status: Status, reason: str) -> State:
    """End an offer by what no transfer did: whoever knows its memory may still touch it."""
    memory = QUARANTINED if state.offer.exposed else FREE
    return _offer(state, status=status, reason=reason, memory=memory)


@_rule("program", lambda s, _: _waits(s) and not s.offer.exposed, of_offer=True)
def describe(state: State, _: int) -> State:
    """``metadata()``: from here on others may know the memory."""
    return _offer(state, exposed=True)


@_rule("program", _waits, of_offer=True)
def cancel_offer(state: State, _: int) -> State:
    """``cancel()``, or the operation is dropped."""
    return _ended(state, CANCELLED, "local")


@_rule("program", lambda s, _: _waits(s) and s.transfers != 1, of_offer=True)
def finish(state: State, _: int) -> State:
    """``finish()``."""
    return _ended(state, COMPLETE, "")


@_rule("program", lambda s, _: s.offer.is_open and s.offer.process == RUNS, of_offer=True)
def close_offer(state: State, _: int) -> State:
    """Its connector closes; memory that is in quarantine stays there."""
    state = _offer(state, is_open=False)
    return _ended(state, CANCELLED, "closed") if state.offer.status < COMPLETE else state


@_rule("clock", _waits, of_offer=True)
def offer_deadline(state: State, _: int) -> State:
    """The deadline passes."""
    return _ended(state, ERRORED, "timeout")


@_rule(
    "clock",
    lambda s, _: s.offer.memory == QUARANTINED and s.offer.process == RUNS,
    of_offer=True,
    assumes=("quarantine",),
)
def quarantine_over(state: State, _: int) -> State:
    """The quarantine ends."""
    return _offer(state, memory=FREE)


@_rule("world", lambda s, _: s.offer.process == RUNS, of_offer=True)
def kill_offer(state: State, _: int) -> State:
    """Its process ends: what it had is the kernel's, which waits for what moves."""
    moves = tuple(move._replace(words=()) for move in state.moves)
    return state._replace(offer=state.offer._replace(process=GONE, memory=NONE), moves=moves)


# The moves.


def _lives(state: State, i: int) -> bool:
    return state.moves[i].process == RUNS


def _goes_on(state: State, i: int) -> bool:
    move = state.moves[i]
    return UNINITIALIZED < move.status < COMPLETE and not move.claimed and _lives(state, i)


def at_it(state: State) -> int:
    """How many transfers have begun, without those that the offer knows to have failed."""
    return sum(move.status != UNINITIALIZED for move in state.moves) - state.offer.failed


def may_begin(state: State) -> bool:
    """Whether one more may come, as the offer's owner was told."""
    return not state.transfers or at_it(state) < state.transfers


@_rule(
    "program",
    lambda s, i: s.moves[i].status == UNINITIALIZED and s.offer.exposed and _lives(s, i),
    assumes=("as many", "in time"),
)
def begin(state: State, i: int) -> State:
    """``begin_read`` or ``begin_write``."""
    return _move(state, i, status=INITIALIZED, memory=HELD)


@_rule("library", lambda s, i: s.moves[i].status == INITIALIZED and _lives(s, i))
def post(state: State, i: int) -> State:
    """NIXL gets the request."""
    request = MOVING if state.moves[i].linked else LOST
    return _move(state, i, status=IN_PROGRESS, request=request)


@_rule("program", _goes_on)
def cancel_move(state: State, i: int) -> State:
    """``cancel()``: what NIXL has is drained."""
    return _move(state, i, status=CANCELLED, reason="local")


@_rule("clock", lambda s, i: _goes_on(s, i) and s.moves[i].status == IN_PROGRESS)
def move_deadline(state: State, i: int) -> State:
    """The deadline passes, which is seen once it is posted; what NIXL has is drained."""
    return _move(state, i, status=ERRORED, reason="timeout")


def _is_deaf(state: State) -> bool:
    """Whether nobody hears what is said to the offer."""
    return state.offer.process == GONE or not state.offer.is_open


@_rule("clock", lambda s, i: s.moves[i].request == MOVING and _goes_on(s, i) and _is_deaf(s))
def miss_offer(state: State, i: int) -> State:
    """The doorbell of the passive side is missing; what NIXL has is drained."""
    return _move(state, i, status=ERRORED, reason="peer lost")


@_rule(
    "program",
    lambda s, i: s.moves[i].is_open and _lives(s, i) and s.moves[i].status != UNINITIALIZED,
)
def close_move(state: State, i: int) -> State:
    """Its connector closes, and waits a while for what NIXL has."""
    change = {"status": CANCELLED, "reason": "closed"} if _goes_on(state, i) else {}
    return _move(state, i, is_open=False, **change)


def _stays(move: Move) -> bool:
    """Whether a connector that closes cannot end what NIXL has."""
    return (move.request == MOVING and not move.said) or move.memory == QUARANTINED


@_rule("clock", lambda s, i: not s.moves[i].is_open and _lives(s, i) and _stays(s.moves[i]))
def drain_over(state: State, i: int) -> State:
    """It has waited as long as it does: memory, request and agent stay, and nobody looks again."""
    if state.moves[i].said:
        return _move(state, i, memory=KEPT)
    return _move(state, i, memory=KEPT, said=UNSENT)


@_rule(
    "nixl",
    lambda s, i: (
        s.moves[i].request == MOVING and s.moves[i].process != GONE and s.offer.process == RUNS
    ),
)
def arrive(state: State, i: int) -> State:
    """All bytes are there."""
    return _move(state, i, request=ARRIVED, arrived=True)


@_rule("nixl", lambda s, i: s.moves[i].request == MOVING and s.moves[i].process != GONE)
def fail(state: State, i: int) -> State:
    """NIXL reports the first part that fails; others may go on."""
    return _move(state, i, request=STRAYING, reported=True, erred=True)


@_rule("nixl", lambda s, i: s.moves[i].request == STRAYING)
def stray_ends(state: State, i: int) -> State:
    """What went on after an error, or after a process was killed, ends."""
    return _move(state, i, request=NONE)


@_rule("nixl", lambda s, i: s.moves[i].linked and s.moves[i].process != GONE)
def cut(state: State, i: int) -> State:
    """The connection is lost: what went over it has ended, and nothing can be said any more."""
    change = {"request": LOST} if touches(state.moves[i]) else {}
    return _move(state, i, linked=False, **change)


@_rule("nixl", lambda s, i: s.moves[i].linked and _lives(s, i), assumes=("refusal",))
def refuse(state: State, i: int) -> State:
    """NIXL refuses messages, and goes on with requests."""
    return _move(state, i, linked=False)


def _unsettled(state: State, i: int) -> bool:
    return not state.moves[i].said and _lives(state, i)


@_rule(
    "library", lambda s, i: _unsettled(s, i) and s.moves[i].request == ARRIVED and _goes_on(s, i)
)
def claim(state: State, i: int) -> State:
    """All bytes are there: too late to cancel."""
    return _move(state, i, claimed=True)


def _says(state: State, i: int, word: str, **changes: object) -> State:
    """Say the last word, if the connection stands."""
    move = state.moves[i]
    words = (*move.words, word) if move.linked and state.offer.process == RUNS else move.words
    return _move(state, i, said=SENT if move.linked else UNSENT, words=words, **changes)


@_rule("library", lambda s, i: _unsettled(s, i) and s.moves[i].claimed)
def say_done(state: State, i: int) -> State:
    """Tell the passive side."""
    return _says(state, i, "done")


@_rule("library", lambda s, i: _unsettled(s, i) and s.moves[i].claimed and _is_deaf(s))
def find_deaf(state: State, i: int) -> State:
    """Find nobody there to tell."""
    return _move(state, i, said=UNSENT)


@_rule(
    "library",
    lambda s, i: (
        s.moves[i].said and s.moves[i].claimed and s.moves[i].memory == HELD and _lives(s, i)
    ),
)
def complete(state: State, i: int) -> State:
    """End as complete, if it was told."""
    if state.moves[i].said == SENT:
        return _move(state, i, status=COMPLETE, memory=FREE)
    reason = "peer lost" if _is_deaf(state) else "not told"
    return _move(state, i, status=ERRORED, reason=reason, memory=FREE)


@_rule(
    "library",
    lambda s, i: (
        _unsettled(s, i)
        and s.moves[i].status >= COMPLETE
        and s.moves[i].request in (NONE, ARRIVED)
        and not s.moves[i].reported
    ),
)
def drained(state: State, i: int) -> State:
    """What was given up has come to its end, or was never posted."""
    word = "cancelled" if state.moves[i].status == CANCELLED else "failed"
    return _says(state, i, word, memory=FREE)


@_rule(
    "library",
    lambda s, i: _unsettled(s, i) and (s.moves[i].reported or s.moves[i].request == LOST),
)
def failed(state: State, i: int) -> State:
    """NIXL has reported an error: an end only where the connection is lost, too."""
    move = state.moves[i]
    change: dict[str, object] = {"memory": QUARANTINED if move.linked else FREE, "reported": False}
    if move.status < COMPLETE:
        change |= {"status": ERRORED, "reason": "transfer" if move.linked else "peer lost"}
    return _says(state, i, "broken", **change)


@_rule(
    "clock",
    lambda s, i: s.moves[i].memory == QUARANTINED and _lives(s, i),
    assumes=("quarantine",),
)
def linger_over(state: State, i: int) -> State:
    """The quarantine of a transfer that NIXL had failed ends."""
    return _move(state, i, memory=FREE)


@_rule("world", lambda s, i: _lives(s, i) and s.moves[i].status != UNINITIALIZED)
def kill_move(state: State, i: int) -> State:
    """Its process ends, in the middle of whatever it did."""
    request = STRAYING if touches(state.moves[i]) else NONE
    nothing = {"linked": False, "claimed": False, "reported": False, "is_open": False}
    return _move(state, i, process=GONE, memory=NONE, request=request, **nothing)


# Between the two.


def _heard(state: State, i: int) -> bool:
    return bool(state.moves[i].words) and state.offer.is_open and state.offer.process == RUNS


@_rule("network", _heard)
def deliver(state: State, i: int) -> State:
    """The next word arrives."""
    word, *rest = state.moves[i].words
    return told(_move(state, i, words=tuple(rest)), word)


@_rule("network", lambda s, i: bool(s.moves[i].words))
def lose(state: State, i: int) -> State:
    """The next word never arrives: it was on its way when something broke."""
    return _move(state, i, words=state.moves[i].words[1:], lost=True)


@_rule("network", lambda s, i: _heard(s, i) and not s.moves[i].doubled, assumes=("once",))
def double(state: State, i: int) -> State:
    """The next word arrives, and will again."""
    return told(_move(state, i, doubled=True), state.moves[i].words[0])


def told(state: State, word: str) -> State:
    """Return what the offer makes of a word."""
    if state.transfers != 1:
        return _counted(state, word)
    if word == "broken":
        return _ended(state, ERRORED, "peer failed") if _waits(state) else state
    # The peer has finished with the memory, whatever became of its transfer.
    state = _offer(state, memory=FREE)
    if not _waits(state):
        return state
    status, reason = {
        "done": (COMPLETE, ""),
        "cancelled": (CANCELLED, "peer cancelled"),
        "failed": (ERRORED, "peer failed"),
    }[word]
    return _offer(state, status=status, reason=reason)


def _counted(state: State, word: str) -> State:
    offer = state.offer
    if offer.status >= COMPLETE:
        return state  # others may be at the memory still
    if word != "done":
        tainted = offer.tainted or word == "broken"
        return _offer(state, failed=offer.failed + 1, tainted=tainted)
    state = _offer(state, done=offer.done + 1)
    if offer.done + 1 != state.transfers:
        return state
    memory = QUARANTINED if state.written or offer.tainted else FREE
    return _offer(state, status=COMPLETE, memory=memory)


@_rule(
    "library",
    lambda s, i: (
        s.moves[i].request in (MOVING, STRAYING)
        and _lives(s, i)
        and not s.moves[i].known
        and s.transfers == 1
        and s.moves[i].linked
        and not s.moves[i].said
    ),
)
def introduce(state: State, i: int) -> State:
    """A transfer that takes long: the passive side of the same host learns whose it is."""
    return _move(state, i, known=True)


def _is_dumb(move: Move) -> bool:
    """Whether the doorbell of a mover is no more: its connector keeps it until all is said."""
    return move.process == GONE or (not move.is_open and move.said != "")


@_rule(
    "clock",
    lambda s, i: s.moves[i].known and _is_dumb(s.moves[i]) and _waits(s),
    assumes=("last words",),
)
def miss_mover(state: State, i: int) -> State:
    """The passive side looks twice for the doorbell of the mover's connector, in vain."""
    return _ended(state, ERRORED, "mover lost")


def holds(assumption: str, state: State, i: int, rule: Rule) -> bool:
    """Whether a rule may be applied, if the world is as assumed."""
    if assumption == "quarantine":
        return not any(map(may_touch, state.moves if rule.of_offer else (state.moves[i],)))
    if assumption == "once":
        return state.transfers == 1
    if assumption == "as many":
        return may_begin(state)
    if assumption == "in time":
        return state.offer.memory != FREE
    if assumption == "refusal":
        return False
    return not state.moves[i].words  # "last words"


def successors(state: State, dropped: str = "") -> Iterator[tuple[str, int, State]]:
    """Yield all that may happen next: the rule, of which move, and the state then.

    Parameters
    ----------
    state : State
        Where it happens.
    dropped : str
        An assumption that is not made.
    """
    for rule in RULES.values():
        for i in range(1 if rule.of_offer else len(state.moves)):
            if rule.when(state, i) and all(
                each == dropped or holds(each, state, i, rule) for each in rule.assumes
            ):
                yield rule.name, i, rule.then(state, i)


def first(transfers: int, written: bool, moves: int) -> State:
    """Return how it begins."""
    return State(transfers, written, Offer(), (Move(),) * moves)


def own_ways(state: State, i: int | None, *, with_nixl: bool = False) -> Iterator[State]:
    """Yield what one side can do by itself, by its library and its clocks, whatever others do.

    Parameters
    ----------
    state : State
        Where it is.
    i : int or None
        Which move; None for the offer.
    with_nixl : bool
        Whether NIXL goes on, with its requests.
    """
    actors = ("library", "clock", "nixl") if with_nixl else ("library", "clock")
    for name, j, then in successors(state, "quarantine"):  # it ends, whoever is late
        rule = RULES[name]
        if rule.actor in actors and (i is None if rule.of_offer else j == i):
            yield then

"""Plays the model for real: processes that do what its rules say, and where that may lead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from processes import DEADLINE, Peer

from life import table
from life.states import COMPLETE, FREE, GONE, KEPT, RUNS, UNINITIALIZED, State, Status
from life.table import RULES

BACKEND = -2
# Seconds: deadlines and quarantines that pass while somebody looks, and that do not.
SHORT, LONG = 0.3, 60.0
# Milliseconds that a word is late.
LATE = 500
# Seconds until what is seen has to be what was foreseen.
PATIENCE = 8.0
LAST = {"cancel_offer", "finish", "close_offer", "close_move", "kill_move"}
LIBRARY = [name for name, each in RULES.items() if each.actor == "library" and name != "introduce"]


class Chosen(NamedTuple):
    """How one example is played."""

    transfers: int
    written: bool
    movers: int
    begun: int  # how many transfers, before anything else
    held: bool  # whether NIXL holds requests back
    far: bool  # as between hosts: words go through NIXL
    offer_short: bool
    moves_short: bool
    quarantine_short: bool


class Play:
    """The states that the two sides may be in, and the processes that are in one of them.

    Parameters
    ----------
    start : callable
        Starts a process.
    """

    def __init__(self, start: Callable[[], Peer]) -> None:
        self._start = start
        self.processes: list[Peer] = []
        # What has been played in all examples, and how sides have ended.
        self.played: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    def begin(self, chosen: Chosen) -> None:
        """Begin an example."""
        self.chosen = chosen
        self.history: list[tuple[str, int]] = []
        self.states: set[State] = set()
        count = chosen.movers
        self.metadata: Any = None
        # Of each move: whether NIXL holds it back, and what becomes of its words.
        self.held = [False] * count
        self.words = ["deliver"] * count
        while len(self.processes) < 1 + count:
            self.processes.append(self._start())
        quarantine = SHORT if chosen.quarantine_short else LONG
        for i, process in enumerate(self.processes):
            if process.process.poll() is not None:
                process.end()
                self.processes[i] = self._start()
            self.do(i - 1, "meet", quarantine=quarantine, far=chosen.far)
        self.do(
            -1,
            "offer",
            written=chosen.written,
            transfers=chosen.transfers,
            timeout=SHORT if chosen.offer_short else None,
        )
        self.states = {table.first(chosen.transfers, chosen.written, count)}
        self.look()
        begun = [("begin", i) for i in range(min(chosen.begun, count))]
        for name, i in [("describe", 0), *begun] if begun else []:
            if (name, i) in self.options():
                self.play(name, i)

    def do(self, i: int, command: str, **arguments: Any) -> Any:
        """Have a side do something: that of a move, or (-1) of the offer."""
        process = self.processes[1 + i]
        try:
            return process.do(command, DEADLINE, **arguments)
        except (EOFError, BrokenPipeError, TimeoutError):
            process.kill()  # another one takes its place
            ended = process.process.returncode
            raise AssertionError(self.chosen, self.history, i, command, ended) from None

    def options(self) -> list[tuple[str, int]]:
        """Return what can be played next, whichever of the states it is."""
        found = [
            (name, i)
            for name, played in PLAYED.items()
            for i in range(1 if RULES[name].of_offer else len(self.held))
            if all(self._may(name, i, state) for state in self.states) and played.when(self, i)
        ]
        if self.chosen.far:
            words = ["lose", "late"] + ["double"] * (self.chosen.transfers == 1)
            found += [(word, i) for word in words for i in self._with_words()]
        # What ends an offer ends the play, mostly.
        usual = [each for each in found if each[0] not in LAST]
        return usual * 6 + [each for each in found if each[0] in LAST]

    def _may(self, name: str, i: int, state: State) -> bool:
        each = RULES[name]
        # Nobody may begin who would break what is assumed; nor with a connector that is closed.
        begins = name == "begin"
        if begins and not all(table.holds(what, state, i, each) for what in each.assumes):
            return False
        return each.when(state, i) and (state.offer.is_open or not begins)

    def _with_words(self) -> list[int]:
        """Return who may have something to say yet."""
        return [
            i
            for i, word in enumerate(self.words)
            if word == "deliver"
            and all(s.moves[i].process == RUNS and not s.moves[i].said for s in self.states)
        ]

    def play(self, name: str, i: int) -> None:
        """Do something, in the model and for real."""
        self.history.append((name, i))
        self.played[name] += 1
        if name in ("lose", "late", "double"):  # of what it says from now on
            self.words[i] = name
            _misbehave_words(self, i)
            return
        before = self.resting()  # until it is done, more may come of it
        PLAYED[name].act(self, i)
        names = [name]
        if name in ("arrive", "fail") and not all(s.offer.is_open for s in self.states):
            # Whatever NIXL makes of who has closed its connection.
            names += ["fail", "cut"]
        able = {each: {s for s in before if RULES[each].when(s, i)} for each in names}
        self.states = {RULES[each].then(state, i) for each in names for state in able[each]}
        self.states |= before - able[name]
        self.look()

    def musts(self, state: State) -> list[State]:
        """Return what follows from a state at once."""
        found = []
        for i in range(len(state.moves)):
            names = [*LIBRARY, *([] if self.words[i] == "late" else [self.words[i]]), "drain_over"]
            if not self.held[i]:
                names.append("arrive")
            found += [RULES[name].then(state, i) for name in names if RULES[name].when(state, i)]
        return found

    def mays(self, state: State) -> list[State]:
        """Return what may follow from a state at any time."""
        chosen, moves = self.chosen, range(len(state.moves))
        names = [("offer_deadline", 0)] * chosen.offer_short
        names += [("move_deadline", i) for i in moves] * chosen.moves_short
        if chosen.quarantine_short:
            names += [("quarantine_over", 0), *(("linger_over", i) for i in moves)]
        late = [i for i in moves if self.words[i] == "late"]
        names += [("deliver", i) for i in late]
        # With its agent, which sends nothing more.
        ended = [i for i in late if not (state.moves[i].is_open and state.moves[i].process == RUNS)]
        names += [("lose", i) for i in ended]
        if not chosen.far:
            looks = ("introduce", "miss_mover", "miss_offer")
            names += [(name, i) for name in looks for i in moves]
        return [RULES[name].then(state, i) for name, i in names if RULES[name].when(state, i)]

    def resting(self) -> set[State]:
        """Return where the model comes to rest, at once or later."""
        resting, seen, waiting = set(), set(self.states), list(self.states)
        while waiting:
            state = waiting.pop()
            nexts = self.musts(state)
            if not nexts:
                resting.add(state)
            nexts += self.mays(state)  # what has to follow takes a while
            waiting += set(nexts) - seen
            seen |= set(nexts)
        return resting

    def look(self) -> None:
        """Wait until what is seen is a state that the model comes to rest in, and keep that."""
        resting = self.resting()
        end = time.monotonic() + PATIENCE
        while True:
            looks = [
                self.do(i - 1, "look") if self._is_there(i) else {}
                for i in range(1 + len(self.held))
            ]
            fitting = {state for state in resting if self._fits(state, looks)}
            if fitting:
                break
            if time.monotonic() >= end:
                self.states = set()
                raise AssertionError(self.chosen, self.history, looks, resting)
            time.sleep(0.005)
        self.states = fitting
        self._compare(looks)
        for kind, look in zip(("offer", *["move"] * len(self.held)), looks, strict=True):
            if look and look["status"] >= COMPLETE:
                how = f"{kind} {Status(look['status']).name.lower()} {look['reason']}"
                self.ends[how.removesuffix(" none")] += 1

    def _is_there(self, i: int) -> bool:
        state = next(iter(self.states))  # all agree about that
        if i == 0:
            return state.offer.process != GONE
        move = state.moves[i - 1]
        return move.process != GONE and move.status != UNINITIALIZED

    def _fits(self, state: State, looks: list[dict[str, Any]]) -> bool:
        """Whether the sides are seen to be in a state."""
        for i, (look, side) in enumerate(zip(looks, (state.offer, *state.moves), strict=True)):
            if not look:
                continue
            memory = side.memory
            if not side.is_open and memory != FREE:
                memory = KEPT  # all that can be told then
            seen = (look["status"], look["reason"], look["memory"])
            if seen != (side.status, side.reason or "none", memory):
                return False
            counts = i == 0 and state.transfers != 1 and side.is_open
            if counts and look["counted"] != [side.done, side.failed]:
                return False
        return True

    def _compare(self, looks: list[dict[str, Any]]) -> None:
        """Compare the bytes of transfers that are complete."""
        for look in looks[1:]:
            if look and look["status"] == COMPLETE:
                assert look["digest"] == looks[0]["digest"], "other bytes"


class Played(NamedTuple):
    """How a rule of the table is done for real, and when that can be."""

    act: Callable[[Play, int], Any]
    when: Callable[[Play, int], bool] = lambda _, __: True


def _describe(play: Play, _: int) -> None:
    play.metadata = play.do(-1, "describe")["metadata"]


def _begin(play: Play, i: int) -> None:
    play.held[i] = play.chosen.held
    play.do(
        i,
        "begin",
        metadata=play.metadata,
        written=play.chosen.written,
        timeout=SHORT if play.chosen.moves_short else None,
        held=play.held[i],
    )


def _arrive(play: Play, i: int) -> None:
    play.held[i] = False
    play.do(i, "let_go")


def _misbehave_words(play: Play, i: int) -> None:
    action = {"lose": "drop", "double": "twice", "late": "late"}[play.words[i]]
    play.do(i, "misbehave", call="gen_notif", action=action, value=LATE, count=-1)


def _wait(_: Play, __: int) -> None:
    time.sleep(SHORT + 0.1)


PLAYED = {
    "describe": Played(_describe),
    "cancel_offer": Played(lambda play, _: play.do(-1, "give_up")),
    "finish": Played(lambda play, _: play.do(-1, "finish")),
    "close_offer": Played(lambda play, _: play.do(-1, "shut")),
    "offer_deadline": Played(_wait, lambda play, _: play.chosen.offer_short),
    "quarantine_over": Played(_wait, lambda play, _: play.chosen.quarantine_short),
    "begin": Played(_begin),
    "cancel_move": Played(lambda play, i: play.do(i, "give_up")),
    "close_move": Played(lambda play, i: play.do(i, "shut")),
    "move_deadline": Played(_wait, lambda play, _: play.chosen.moves_short),
    "linger_over": Played(_wait, lambda play, _: play.chosen.quarantine_short),
    "arrive": Played(_arrive, lambda play, i: play.held[i]),
    "fail": Played(
        lambda play, i: play.do(
            i, "misbehave", call="get_xfer_status", action="fail", value=BACKEND, count=1
        )
    ),
    "kill_move": Played(lambda play, i: play.processes[1 + i].kill()),
    "deliver": Played(lambda _, __: time.sleep(LATE / 1000)),
}

"""The model of an operation's life, played: the real library does as the table says.

Whatever the table calls a step of the program, of NIXL or of the network is done to real processes,
whose NIXL is scripted (scripted/nixl.c). What the library does by itself follows in the model, on
every way that there is; what is seen of both sides must be one of the states that this leads to.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import pytest
from compiling import build
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from life.play import Chosen, Play
from life.table import RULES
from processes import Peer

from nixl_connect.backend import library

HERE = Path(__file__).parents[1]
EXAMPLES = int(os.environ.get("LIFE_EXAMPLES", "60"))
# Which rules, and which ends of both sides, a run of the usual length must have played.
WANTED = {
    *("describe", "cancel_offer", "close_offer", "begin", "cancel_move", "close_move"),
    *("arrive", "fail", "kill_move"),
}
WANTED_ENDS = {
    *("offer complete", "offer cancelled local", "offer cancelled closed", "offer errored timeout"),
    *("move complete", "move cancelled local", "move errored transfer"),
}


class Life(RuleBasedStateMachine):
    """Plays what hypothesis thinks of."""

    stage: ClassVar[Play]

    @initialize(
        transfers=st.sampled_from([1, 2, 0]),
        written=st.booleans(),
        begun=st.sampled_from([0, 1, 1, 2, 2]),
        held=st.sampled_from([True, True, False]),
        far=st.booleans(),
        offer_short=st.sampled_from([False, False, True]),
        moves_short=st.sampled_from([False, False, True]),
        quarantine_short=st.sampled_from([False, False, True]),
    )
    def begin(self, **chosen: Any) -> None:
        movers = 1 if chosen["transfers"] == 1 else 2
        self.stage.begin(Chosen(movers=movers, **chosen))

    # Not drawn of what can be done, which may depend on what has been seen; nor mostly small.
    @rule(number=st.integers(0, 1 << 16))
    def step(self, number: int) -> None:
        options = self.stage.options()
        if options:
            self.stage.play(*random.Random(number).choice(options))

    def teardown(self) -> None:
        if self.stage.states:
            self.stage.look()  # and nothing else has come of it


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Play]:
    built = tmp_path / "libnixl_capi.so"
    build([HERE / "scripted" / "nixl.c"], built)
    environment = {"NIXL_CONNECT_LIBRARY": str(built), "SCRIPTED_NIXL": library.load().path}
    play = Play(lambda: Peer(environment, program=HERE / "life" / "side.py"))
    yield play
    for process in play.processes:
        process.end()


@pytest.mark.timeout(100 + 5 * EXAMPLES)
def test_the_library_does_as_the_table_says(stage):
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        stateful_step_count=12,
        derandomize="LIFE_EXAMPLES" not in os.environ,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    machine = type("Staged", (Life,), {"stage": stage})
    hypothesis.stateful.run_state_machine_as_test(machine, settings=settings)
    print(dict(stage.played), dict(stage.ends))
    if EXAMPLES >= 60:
        assert WANTED - stage.played.keys() == set()
        assert WANTED_ENDS - stage.ends.keys() == set()


BEGUN = [("describe", 0), ("begin", 0)]
# What seldom comes up: how it is played, and what has come of it.
SELDOM = {
    "a transfer that NIXL fails": ({}, ["fail"], "offer errored peer failed"),
    "a cancelled transfer, drained": (
        {},
        ["cancel_move", "arrive"],
        "offer cancelled peer cancelled",
    ),
    "a late transfer, drained": (
        {"moves_short": True},
        ["move_deadline", "arrive"],
        "offer errored peer failed",
    ),
    "a word that is late": ({}, ["late", "arrive", "deliver"], "offer complete"),
    "a word that comes twice": ({}, ["double", "arrive"], "offer complete"),
    "a word that comes after the offer was given up": (
        {},
        ["late", "arrive", "cancel_offer", "deliver"],
        "offer cancelled local",
    ),
    "a word that is lost": (
        {"offer_short": True},
        ["lose", "arrive", "offer_deadline"],
        "offer errored timeout",
    ),
    "a connector that closes while a failed transfer lingers": (
        {"quarantine_short": True, "far": False},
        ["fail", "close_move", "quarantine_over"],
        "move errored transfer",
    ),
    "a connector that closes with a transfer in flight": (
        {},
        ["close_move"],
        "move cancelled closed",
    ),
    "an offer to two of which one fails": (
        {"transfers": 2, "movers": 2},
        ["fail", ("begin", 1), ("arrive", 1), "finish"],
        "offer complete",
    ),
    "memory of two transfers, where a third that failed may go on": (
        {"transfers": 2, "movers": 3},
        ["fail", ("begin", 1), ("arrive", 1), ("begin", 2), ("arrive", 2)],
        "offer complete",
    ),
    "memory that two have read": (
        {"transfers": 2, "movers": 2},
        ["arrive", ("begin", 1), ("arrive", 1)],
        "offer complete",
    ),
    "memory that two have written": (
        {"transfers": 2, "movers": 2, "written": True},
        ["arrive", ("begin", 1), ("arrive", 1)],
        "offer complete",
    ),
    "written memory after its offer was given up": (
        {"written": True, "quarantine_short": True},
        ["cancel_offer", "arrive"],
        "offer cancelled local",
    ),
    "a mover that is killed": (
        {"quarantine_short": True, "offer_short": True},
        ["kill_move", "offer_deadline", "quarantine_over"],
        "offer errored timeout",
    ),
}


@pytest.mark.parametrize("what", SELDOM)
def test_what_seldom_comes_up(stage, what):
    options, steps, end = SELDOM[what]
    usual = Chosen(1, False, 1, 0, True, True, False, False, False)
    for _ in range(5):
        stage.begin(usual._replace(**options))
        stage.ends.clear()
        if all(_played(stage, step) for step in [*BEGUN, *steps]):
            break
    else:
        pytest.fail("something else was faster, each time")
    assert end in stage.ends


def _played(stage: Play, step: str | tuple[str, int]) -> bool:
    """Play a step; return False where a clock was faster."""
    name, i = (step, 0) if isinstance(step, str) else step
    if (name, i) not in stage.options():
        return RULES[name].actor == "clock"  # it has passed already
    stage.play(name, i)
    return True

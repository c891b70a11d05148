"""The model of an operation's life: what it promises holds, and it would be seen if it did not."""

import pytest
from life import drawing, explorer, table
from life.states import ASSUMPTIONS, CANCELLED, COMPLETE, ERRORED, FREE, SENT, UNINITIALIZED, Status
from life.table import RULES

import nixl_connect as nc
from nixl_connect._native.status import StatusCell


@pytest.mark.parametrize(("transfers", "written", "movers", "most"), explorer.CASES)
def test_no_promise_is_broken(transfers, written, movers, most):
    """Whatever goes wrong with one mover; one thing of two. `make model` lets two things."""
    seen = explorer.explore(table.first(transfers, written, movers), most and 1)
    assert seen.found is None
    assert seen.states > 10_000


@pytest.mark.parametrize("assumption", ASSUMPTIONS)
def test_each_assumption_is_needed(assumption):
    found = explorer.counterexample(assumption)
    assert found is not None
    assert len(found.way) < 12


# A rule, what it does wrongly, and the promise that is then found to be broken.
WRONG = {
    "memory is freed when an offer is cancelled": (
        "cancel_offer",
        lambda rule: lambda s, i: table._offer(rule.then(s, i), memory=FREE),
        "the offer's memory is free",
    ),
    "memory is freed when a transfer is cancelled": (
        "cancel_move",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, memory=FREE),
        "the mover's memory is free",
    ),
    "an error of NIXL's is taken for an end": (
        "failed",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, memory=FREE),
        "the mover's memory is free",
    ),
    "what may still go on is said to have ended": (
        "failed",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, words=("failed",)),
        "the offer's memory is free",
    ),
    "the passive side is told before a request is drained": (
        "cancel_move",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, words=("cancelled",)),
        "the offer's memory is free",
    ),
    "a transfer is complete when it is posted": (
        "post",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, status=COMPLETE),
        "its bytes are not there",
    ),
    "a word changes what has ended": (
        "deliver",
        lambda rule: lambda s, i: table._offer(rule.then(s, i), status=COMPLETE),
        "",
    ),
    "a deadline ends what is being announced": (
        "say_done",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, status=ERRORED, reason="timeout"),
        "",
    ),
    "no word is heeded": (
        "deliver",
        lambda rule: lambda s, i: table._move(s, i, words=s.moves[i].words[1:]),
        "an offer was told of the end of its transfer, and goes on",
    ),
    "a drained transfer says nothing": (
        "drained",
        lambda rule: lambda s, i: table._move(s, i, memory=FREE, said=SENT),
        "an offer was told of the end of its transfer, and goes on",
    ),
    "a cancelled transfer says that it failed": (
        "drained",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, words=("failed",)),
        "the offer was told of a failure that was none",
    ),
    "a failed transfer says that it was cancelled": (
        "drained",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, words=("cancelled",)),
        "the offer was told of a cancellation that was none",
    ),
    "a transfer that NIXL failed says nothing": (
        "failed",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, words=()),
        "an offer was told of the end of its transfer, and goes on",
    ),
    "complete, though nobody could be told": (
        "complete",
        lambda rule: lambda s, i: table._move(s, i, status=COMPLETE, memory=FREE),
        "a transfer is complete, and its peer was not told",
    ),
    "failed, though its peer was told": (
        "complete",
        lambda rule: lambda s, i: table._move(s, i, status=ERRORED, reason="not told", memory=FREE),
        "a transfer has failed to tell its peer, and has told it",
    ),
    "a peer is missed that is there": (
        "move_deadline",
        lambda rule: lambda s, i: table._move(s, i, status=ERRORED, reason="peer lost"),
        "a peer was taken for lost that is there",
    ),
    "a connector that closes frees what NIXL has": (
        "drain_over",
        lambda rule: lambda s, i: table._move(rule.then(s, i), i, memory=FREE),
        "the mover's memory is free",
    ),
    "no deadline": (
        "move_deadline",
        lambda rule: lambda s, i: s,
        "a transfer waits for ever",
    ),
    "a quarantine that does not end": (
        "quarantine_over",
        lambda rule: lambda s, i: s,
        "an offer's memory is held for ever",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_found(monkeypatch, what):
    name, change, promise = WRONG[what]
    rule = RULES[name]
    monkeypatch.setitem(RULES, name, rule._replace(then=change(rule)))
    explorer.forget()
    monkeypatch.setattr(explorer, "CASES", explorer.CASES[:2])
    founds = [
        explorer.explore(table.first(transfers, written, movers), 2).found
        for transfers, written, movers, _ in explorer.CASES
    ]
    explorer.forget()
    assert all(founds)
    assert promise in founds[0].promise


@pytest.fixture
def few(monkeypatch):
    """Three movers can do much: here nobody gives up, and of processes none ends."""
    absent = {"close_offer", "close_move", "cancel_offer", "cancel_move", "kill_offer", "kill_move"}
    absent |= {"lose", "double", "finish"}
    rules = {name: rule for name, rule in RULES.items() if name not in absent}
    monkeypatch.setattr(table, "RULES", rules)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("written", [False, True])
class TestOffersToTwoThatAThirdComesTo:
    """He comes since one has failed."""

    def test_no_promise_is_broken(self, written):
        seen = explorer.explore(table.first(2, written, 3), 1)
        assert seen.found is None
        assert seen.states > 5_000

    def test_who_failed_may_go_on(self, monkeypatch, written):
        """If that were not heeded, memory that was read would be free too early."""
        counted = table._counted
        monkeypatch.setattr(
            table, "_counted", lambda s, word: counted(s, "failed" if word == "broken" else word)
        )
        found = explorer.explore(table.first(2, written, 3), 1).found
        assert (found is None) is written  # what was written is kept anyway
        assert written or "the offer's memory is free" in found.promise

    def test_who_was_not_expected(self, written):
        """What was written is kept, since somebody may be late; what was read is not."""
        found = explorer.explore(table.first(2, written, 3), 0, "as many").found
        assert (found is None) is written


@pytest.mark.usefixtures("few")
def test_written_memory_that_is_not_kept_is_found(monkeypatch):
    counted = table._counted
    monkeypatch.setattr(
        table,
        "_counted",
        lambda s, word: counted(s._replace(written=False), word)._replace(written=s.written),
    )
    found = explorer.explore(table.first(2, True, 3), 0, "as many").found
    assert "the offer's memory is free" in found.promise


def test_the_drawing_is_of_this_table():
    assert drawing.DRAWING.read_text() == drawing.drawing(), "make lifecycle draws it anew"


def test_statuses_are_the_library_s():
    assert {each.name: int(each) for each in Status} == {
        each.name: int(each) for each in nc.OperationStatus
    }


def test_statuses_change_as_the_library_allows():
    """All changes that the table makes are allowed, and all that are allowed are made.

    But for an operation that fails while it is constructed, before anybody knows of it.
    """
    made = {
        (old, new)
        for transfers in (1, 0)
        for _, _, old, new in explorer.explore(table.first(transfers, True, 1), 1).edges
    }
    allowed = set()
    for old in Status:
        for new in Status:
            cell = StatusCell()
            for step in ([], [1], [1, 2], [1, 3], [4], [5])[old]:
                assert cell.advance(step)
            if cell.advance(new):
                allowed.add((old, new))
    unmade = {(UNINITIALIZED, CANCELLED), (UNINITIALIZED, ERRORED)}
    assert made == allowed - unmade

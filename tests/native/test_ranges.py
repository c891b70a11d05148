"""The map of address ranges, against a model that looks at every range."""

import bisect
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nixl_connect._native.ranges import RangeMap, Spans

TOP = 2**64 - 1
# Few places, so that ranges meet often, and some lengths of very different magnitude.
START = st.integers(0, 40) | st.integers(0, TOP - 2**40) | st.sampled_from([4095, 4096, TOP - 1])
LENGTH = st.integers(1, 12) | st.sampled_from([63, 64, 65, 4096, 2**32, 2**40])


@st.composite
def ranges(draw):
    start = draw(START)
    return start, min(start + draw(LENGTH), TOP)


class AgainstModel(RuleBasedStateMachine):
    """Every answer is compared with a dict that is searched from end to end."""

    def __init__(self):
        super().__init__()
        self.map = RangeMap()
        self.model = {}
        self.count = 0

    @rule(key=ranges())
    def add(self, key):
        if key not in self.model:
            self.count += 1
            self.model[key] = self.count
            self.map.add(*key, self.count)

    @rule(keys=st.sets(ranges(), max_size=20))
    def add_many(self, keys):
        fresh = sorted(keys - self.model.keys())
        for key in fresh:
            self.count += 1
            self.model[key] = self.count
        self.map.add_many([(*key, self.model[key]) for key in fresh])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        key = data.draw(st.sampled_from(sorted(self.model)))
        del self.model[key]
        self.map.remove(*key)

    @rule(key=ranges())
    def get(self, key):
        assert self.map.get(*key) == self.model.get(key)

    @rule(key=ranges())
    def neighbour(self, key):
        order = sorted(self.model)
        i = bisect.bisect_left(order, key)
        expected = next(
            (
                self.model[known]
                for known in (*order[i : i + 1], *(order[i - 1 : i] if i else ()))
                if known[0] <= key[0] and known[1] >= key[1]
            ),
            None,
        )
        assert self.map.neighbour(*key) == expected

    @rule(key=ranges())
    def cover(self, key):
        expected = [v for k, v in self.model.items() if k[0] <= key[0] and k[1] >= key[1]]
        assert sorted(self.map.covering(*key)) == sorted(expected)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def meet_within_a_known_one(self, data):
        start, end = data.draw(st.sampled_from(sorted(self.model)))
        at = data.draw(st.integers(start, end - 1))
        self.neighbour((at, data.draw(st.integers(at + 1, end))))
        self.cover((at, data.draw(st.integers(at + 1, end))))

    @invariant()
    def same_size(self):
        assert len(self.map) == len(self.model)


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=80, stateful_step_count=40)


class SpansAgainstModel(RuleBasedStateMachine):
    """What spans admit, against all the ranges that were added."""

    def __init__(self):
        super().__init__()
        self.spans = Spans()
        self.model = []

    @rule(key=ranges(), value=st.integers(0, 2))
    def add_if_admitted(self, key, value):
        admitted = self.spans.admits(*key, value)
        assert admitted == all(
            known == value for (start, end), known in self.model if start < key[1] and end > key[0]
        )
        if admitted:
            self.model.append((key, value))
            self.spans.add(*key, value)

    @invariant()
    def no_more_than_there_are(self):
        assert len(self.spans) <= len(self.model)


TestSpansAgainstModel = SpansAgainstModel.TestCase
TestSpansAgainstModel.settings = settings(max_examples=80, stateful_step_count=40)


def test_where_values_have_met_nothing_is_admitted():
    spans = Spans()
    spans.add(0, 10, "a")
    spans.add(5, 15, "b")
    for value in ("a", "b", "c"):
        assert not spans.admits(9, 12, value)
        assert spans.admits(15, 20, value)


def test_ranges_of_one_value_become_one_span():
    spans = Spans()
    for start in range(0, 10_000, 10):
        spans.add(start, start + 10, "a")
        spans.add(max(start - 95, 0), start + 5, "a")
    assert len(spans) == 1
    assert spans.admits(0, 10_000, "a")
    assert not spans.admits(9_999, 20_000, "b")


def test_remove_what_is_not_there():
    known = RangeMap()
    known.add(0, 10, "a")
    for absent in ((0, 9), (1, 10), (20, 30)):
        with pytest.raises(KeyError):
            known.remove(*absent)
    assert list(known.covering(0, 10)) == ["a"]


def test_ends_are_open():
    known = Spans()
    known.add(10, 20, "a")
    assert known.admits(0, 10, "b")
    assert known.admits(20, 30, "b")
    assert not known.admits(19, 20, "b")
    assert not known.admits(0, 11, "b")
    assert known.admits(0, 11, "a")


def test_a_removed_range_can_come_back():
    known = RangeMap()
    for value in range(5):
        known.add(0, 8, value)
        assert list(known.covering(0, 8)) == [value]
        known.remove(0, 8)
        assert known.get(0, 8) is None


def test_values_are_let_go():
    value = object()
    before = sys.getrefcount(value)
    known = RangeMap()
    for i in range(100):
        known.add(i, i + 1 + i % 7, value)
    for i in range(0, 100, 2):
        known.remove(i, i + 1 + i % 7)
    assert sys.getrefcount(value) == before + 50
    del known
    assert sys.getrefcount(value) == before

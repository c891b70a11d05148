"""The map of address ranges, against a model that looks at every range."""

import bisect
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nixl_connect._native.packing import Regions
from nixl_connect._native.ranges import RangeMap, coverings, neighbours

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

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        key = data.draw(st.sampled_from(sorted(self.model)))
        del self.model[key]
        self.map.remove(*key)

    @rule(key=ranges())
    def get(self, key):
        assert self.map.get(*key) == self.model.get(key)

    @rule(key=ranges(), value=st.integers(0, 20))
    def meet(self, key, value):
        met = [v for k, v in self.model.items() if k[0] < key[1] and k[1] > key[0]]
        assert self.map.admits(*key, value) == all(v == value for v in met)

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
        self.meet((at, data.draw(st.integers(at + 1, end))), data.draw(st.integers(0, 20)))
        self.neighbour((at, data.draw(st.integers(at + 1, end))))
        self.cover((at, data.draw(st.integers(at + 1, end))))

    @invariant()
    def same_size(self):
        assert len(self.map) == len(self.model)


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=80, stateful_step_count=40)


def test_remove_what_is_not_there():
    known = RangeMap()
    known.add(0, 10, "a")
    for absent in ((0, 9), (1, 10), (20, 30)):
        with pytest.raises(KeyError):
            known.remove(*absent)
    assert list(known.covering(0, 10)) == ["a"]


def test_ends_are_open():
    known = RangeMap()
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


def test_look_up_does_not_walk_through_all():
    """Counts the values that a look-up compares, in a map of many small and one large."""

    class Counted:
        compared = 0

        def __eq__(self, other):
            Counted.compared += 1
            return True

        __hash__ = None

    known = RangeMap()
    known.add(0, 2**40, Counted())
    for i in range(20_000):
        known.add(64 * i, 64 * i + 64, Counted())
    at = 64 * 10_000
    assert known.admits(at, at + 64, "any")
    assert Counted.compared == 2
    assert len(known.covering(at, at + 64)) == 2


def test_whole_tables():
    one, two = RangeMap(), RangeMap()
    one.add(0x1000, 0x2000, "a")
    one.add(0x1000, 0x1800, "b")
    two.add(0x1000, 0x2000, "c")
    rows = Regions([(0x1000, 0x800, 0), (0x1000, 8, 7), (0x1000, 8, 1), (0x1800, 8, 0)])
    assert neighbours({0: one, 1: two}, rows) == ["b", None, "c", "a"]
    assert coverings({0: one, 1: two}, rows) is None
    rows = Regions([(0x1000, 0x800, 0), (0x1000, 8, 1)])
    assert sorted(coverings({0: one, 1: two}, rows)) == ["a", "b", "c"]


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

"""Rows of (address, length, device): what goes in comes out, and nothing bad goes in."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import run_python

from nixl_connect._native.packing import Regions

TOP = 2**64 - 1
# Lengths low enough that 64 of them stay within 64 bits together.
ROW = st.tuples(st.integers(1, TOP - 2**57), st.integers(1, 2**57), st.integers(0, TOP))
ROWS = st.lists(ROW, min_size=1, max_size=64)


@given(ROWS)
def test_round_trip_of_a_list(rows):
    regions = Regions(rows)
    assert len(regions) == regions.count == len(rows)
    assert regions.nbytes == sum(length for _, length, _ in rows)
    assert [regions[i] for i in range(len(rows))] == rows
    assert regions[-1] == rows[-1]
    array = np.asarray(regions)
    assert array.dtype == np.uint64
    assert array.shape == (len(rows), 3)
    assert array.tolist() == [list(row) for row in rows]


@given(ROWS)
def test_round_trip_of_an_array(rows):
    array = np.array(rows, np.uint64)
    regions = Regions(array)
    array[:] = 0  # a copy was taken
    assert [regions[i] for i in range(len(rows))] == rows
    assert np.array_equal(Regions(regions), Regions(tuple(rows)))


@pytest.mark.parametrize("code", ["Q", "L"])
def test_memoryview(code):
    view = memoryview(np.array([1, 2, 3, 4, 5, 6], np.uint64)).cast("B").cast(code, (2, 3))
    regions = Regions(view)
    assert [regions[0], regions[1]] == [(1, 2, 3), (4, 5, 6)]


def test_rows_of_other_integers():
    assert Regions([np.array([1, 2, 3], np.uint64)])[0] == (1, 2, 3)
    assert Regions([[1, np.int32(2), True]])[0] == (1, 2, 1)


def test_extremes():
    assert Regions([(TOP - 1, 1, TOP)])[0] == (TOP - 1, 1, TOP)
    assert Regions([(1, TOP - 1, 0)]).nbytes == TOP - 1
    assert Regions([(1, TOP - 1, 0), (1, 1, 0)]).nbytes == TOP


def test_index():
    regions = Regions([(1, 2, 3)])
    for i in (1, -2, 2**40):
        with pytest.raises(IndexError):
            regions[i]
    with pytest.raises(TypeError):
        regions["0"]


def test_read_only():
    view = memoryview(Regions([(1, 2, 3)]))
    assert view.readonly
    with pytest.raises(TypeError):
        view[0, 0] = 5
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(view)[0, 0] = 5
    regions = Regions([(1, 2, 3)])
    with pytest.raises((TypeError, BufferError)):
        io.BytesIO(bytes(24)).readinto(regions)
    assert regions[0] == (1, 2, 3)
    with pytest.raises(AttributeError):
        regions.count = 7


def test_view_keeps_the_rows():
    view = memoryview(Regions([(1, 2, 3)] * 1000))
    for _ in range(100):
        Regions([(9, 9, 9)] * 1000)  # would take the memory if it had been freed
    assert view[999, 0] == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "empty"),
        ((), "empty"),
        (np.empty((0, 3), np.uint64), "empty"),
        ([(0, 1, 0)], "row 0: null address"),
        ([(1, 1, 0), (0, 1, 0)], "row 1: null address"),
        ([(1, 0, 0)], "row 0: length 0"),
        ([(TOP, 1, 0)], "address space"),
        ([(1, TOP, 0)], "address space"),
        ([(2**63, 2**63, 0)], "address space"),
        ([(1, 2**63, 0), (1, 2**63, 0)], "row 1: the total"),
        (np.array([[0, 1, 0]], np.uint64), "null address"),
        (np.ones((2, 3), np.int64), "uint64"),
        (np.ones((2, 3), np.uint32), "uint64"),
        (np.ones((2, 3), np.float64), "uint64"),
        (np.ones((2, 3), ">u8"), "uint64"),
        (np.ones((2, 3), "M8[s]"), "dtype"),
        (np.ones((2, 4), np.uint64), "shape"),
        (np.ones((3, 2), np.uint64), "shape"),
        (np.ones(3, np.uint64), "shape"),
        (np.ones((1, 2, 3), np.uint64), "shape"),
        (np.ones((4, 3), np.uint64)[::2], "contiguous"),
        (np.ones((4, 3), np.uint64, order="F"), "contiguous"),
        (bytes(24), "uint64"),
    ],
)
def test_bad_values(rows, words):
    with pytest.raises(ValueError, match=words):
        Regions(rows)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        5,
        "rows",
        {(1, 2, 3)},
        [5],
        [None],
        [("1", 2, 3)],
        [(1, None, 3)],
        [(1, 2)],
        [(1, 2, 3, 4)],
        [(1.5, 2, 3)],
        [(1.0, 2, 3)],
    ],
    ids=repr,
)
def test_bad_types(rows):
    with pytest.raises(TypeError):
        Regions(rows)


@pytest.mark.parametrize("column", range(3))
@pytest.mark.parametrize("number", [-1, -(2**63), 2**64, 2**70])
def test_numbers_that_do_not_fit(column, number):
    row = [1, 1, 1]
    row[column] = number
    with pytest.raises(OverflowError):
        Regions([row])


def test_list_that_shrinks_while_it_is_read():
    """A mistake here reads freed memory, so in a process of its own: the list is read as it was."""
    code = """
from nixl_connect._native.packing import Regions
class Cut:
    def __index__(self):
        rows[1:] = []
        return 1
rows = [(Cut(), 1, 1)] + [(1, 1, 1)] * 4096
print(len(Regions(rows)))
"""
    assert run_python("-c", code).stdout == "4097\n"

"""The state machine: only the moves of its table, from whatever thread."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixl_connect import OperationKind, OperationStatus
from nixl_connect._native.status import StatusCell
from nixl_connect.status import OperationStatus as Status

LEGAL = {
    (Status.UNINITIALIZED, Status.INITIALIZED),
    (Status.UNINITIALIZED, Status.CANCELLED),
    (Status.UNINITIALIZED, Status.ERRORED),
    (Status.INITIALIZED, Status.IN_PROGRESS),
    (Status.INITIALIZED, Status.COMPLETE),
    (Status.INITIALIZED, Status.CANCELLED),
    (Status.INITIALIZED, Status.ERRORED),
    (Status.IN_PROGRESS, Status.COMPLETE),
    (Status.IN_PROGRESS, Status.CANCELLED),
    (Status.IN_PROGRESS, Status.ERRORED),
}
FINAL = {Status.COMPLETE, Status.CANCELLED, Status.ERRORED}
PATHS = {
    Status.UNINITIALIZED: [],
    Status.INITIALIZED: [Status.INITIALIZED],
    Status.IN_PROGRESS: [Status.INITIALIZED, Status.IN_PROGRESS],
    Status.COMPLETE: [Status.INITIALIZED, Status.COMPLETE],
    Status.CANCELLED: [Status.CANCELLED],
    Status.ERRORED: [Status.ERRORED],
}


def cell_at(status):
    cell = StatusCell()
    for step in PATHS[status]:
        assert cell.advance(step)
    return cell


@pytest.mark.parametrize("to", Status, ids=lambda item: item.name)
@pytest.mark.parametrize("start", Status, ids=lambda item: item.name)
def test_table(start, to):
    cell = cell_at(start)
    legal = (start, to) in LEGAL
    assert cell.advance(to) is legal
    assert cell.value == (to if legal else start)


@pytest.mark.parametrize("start", Status, ids=lambda item: item.name)
def test_no_such_status(start):
    cell = cell_at(start)
    for to in (-(2**31), -1, 6, 7, 8, 31, 32, 33, 64, 2**31 - 1):
        assert cell.advance(to) is False
        assert cell.value == start


@given(st.lists(st.integers(-1, 6), max_size=12))
def test_any_sequence_of_moves(moves):
    cell, model = StatusCell(), Status.UNINITIALIZED
    for to in moves:
        legal = (model, to) in LEGAL
        assert cell.advance(to) is legal
        model = Status(to) if legal else model
        assert cell.value == model
        assert model.is_final is (model in FINAL)


@pytest.mark.parametrize("begin", [Status.INITIALIZED, Status.IN_PROGRESS], ids=lambda s: s.name)
def test_one_thread_wins_the_end(begin):
    rounds, writers = 200, 6
    cells = [cell_at(begin) for _ in range(rounds)]
    start = threading.Barrier(writers)
    moved = [[] for _ in range(writers)]

    def write(i):
        to = (Status.COMPLETE, Status.CANCELLED, Status.ERRORED)[i % 3]
        for cell in cells:
            start.wait(20)
            moved[i].append(to if cell.advance(to) else None)

    threads = [threading.Thread(target=write, args=(i,), daemon=True) for i in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for i in range(rounds):
        winners = [item[i] for item in moved if item[i] is not None]
        assert winners == [cells[i].value]


def test_numbers_are_the_native_ones():
    for status in Status:
        assert cell_at(status).value == int(status)


def test_status_values():
    assert {item.name: item.value for item in OperationStatus} == {
        "UNINITIALIZED": 0,
        "INITIALIZED": 1,
        "IN_PROGRESS": 2,
        "COMPLETE": 3,
        "CANCELLED": 4,
        "ERRORED": 5,
    }
    assert [str(item) for item in OperationStatus] == [
        "UNINIT",
        "INIT",
        "PROC",
        "DONE",
        "STOP",
        "ERR",
    ]
    assert f"{OperationStatus.COMPLETE}" == "DONE"


def test_kind_values():
    assert {item.name: item.value for item in OperationKind} == {
        "UNSPECIFIED": 0,
        "READ": 1,
        "WRITE": 2,
    }
    assert [str(item) for item in OperationKind][1:] == ["READ", "WRITE"]

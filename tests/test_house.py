"""Who imports whom: no circles, nothing upwards, and few floors; the drawing shows what is so."""

import ast
import graphlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))
import house  # noqa: E402, after the path

import nixl_connect as nc  # noqa: E402

NATIVE = f"{house.PACKAGE}._native"
MOST_FLOORS, MOST_ROOMS = 8, 22


def test_what_is_read():
    """Of each kind one import that is known."""
    found = house.imports()
    assert "nixl_connect.connector" in found["nixl_connect"]
    of_descriptor = found["nixl_connect.memory.descriptor"]
    assert "nixl_connect._native.hold" in of_descriptor  # for type checkers
    assert "nixl_connect.monitor" in found["nixl_connect.connector"]  # within a function
    of_hold = found["nixl_connect._native.hold"]  # in C: one after the other, and in parentheses
    assert {f"{NATIVE}.{name}" for name in ("core", "packing", "peer", "record")} <= of_hold
    of_transfer = found["nixl_connect._native.transfer"]
    assert {f"{NATIVE}.{name}" for name in ("core", "record", "status")} <= of_transfer
    assert all("_native" in name for name in found["nixl_connect._native.hold"])


def test_no_file_is_in_a_circle():
    try:
        graphlib.TopologicalSorter(house.imports()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_room_is_in_a_circle():
    """So that none imports from above."""
    try:
        graphlib.TopologicalSorter(house.rooms()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_few_floors():
    floors = house.floors()
    (top,) = [height for height, names in enumerate(floors) if house.COMMAND in names]
    assert top <= MOST_FLOORS, floors
    # Beside it is what programs of Ray import, and nothing else does.
    assert floors[top:] == [[house.COMMAND, "ray"], ["__main__"]]


def test_few_rooms():
    assert len(house.rooms()) <= MOST_ROOMS


def test_native_code_knows_nothing_above():
    for module, used in house.imports().items():
        if module.startswith(f"{NATIVE}."):
            above = [name for name in used if not name.startswith(NATIVE)]
            assert not above, f"{module} imports {above}"


@pytest.mark.parametrize("name", [name for name in house.rooms() if name != "__main__"])
def test_a_room_says_what_it_is_for(name):
    path = ROOT / house.PACKAGE
    if name != house.PACKAGE:
        path = path / name
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert ast.get_docstring(ast.parse(source.read_text()))


def test_the_drawing_shows_it():
    assert house.DRAWING.read_text() == house.drawing(), "make house draws it anew"


def test_every_room_is_on_the_map():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = house.rooms().keys() - {house.PACKAGE, "__main__"}
    shown = {
        name: f"| `{name}` |" if (ROOT / house.PACKAGE / name).is_dir() else f"`{name}.py`"
        for name in rooms
    }
    assert [name for name, text_of in shown.items() if text_of not in text] == []


def walked(call: Callable[[], object]) -> list[str]:
    """Return the rooms whose Python a call runs, one after the other."""
    stack, rooms = [], []

    def follow(frame, event, _):
        if event == "call":
            stack.append(frame.f_globals.get("__name__", ""))
        elif event == "return" and stack:
            stack.pop()
        own = [name for name in stack if name.startswith(f"{house.PACKAGE}.")]
        if own and (not rooms or rooms[-1] != house.room(own[-1])):
            rooms.append(house.room(own[-1]))

    sys.setprofile(follow)
    try:
        call()
    finally:
        sys.setprofile(None)
    return rooms


def test_a_descriptor_enters_each_room_once(make_connector):
    """What docs/explanation/transfer.md draws, of calls that are not the first."""
    owner, mover = make_connector(), make_connector()

    def move() -> list[list[str]]:
        source, target = nc.Descriptor(bytearray(b"walked")), nc.Descriptor(bytearray(6))
        kept = []
        offered = walked(lambda: kept.append(owner.create_readable_blocking(source)))
        metadata = kept[0].metadata()
        begun = walked(lambda: kept.append(mover.begin_read_blocking(metadata, target)))
        for operation in kept:
            operation.wait_for_completion_blocking(timeout=30)
        return [offered, begun]

    move()
    there_and_back = ["connector", "operations", "connector"]  # below is no Python
    # A machine that is busy may pause for 50 ms between two: then the peer is looked at again.
    assert [there_and_back, there_and_back] in [move() for _ in range(20)]

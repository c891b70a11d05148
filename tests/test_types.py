"""That the programs in tests/typing use all that is public. "make check" has them checked."""

import ast
import enum
from pathlib import Path
from typing import get_type_hints

import pytest

import nixl_connect as nc
from nixl_connect.engine import statistics

PROGRAMS = Path(__file__).parent / "typing" / "programs"
CLASSES = [name for name in nc.__all__ if isinstance(getattr(nc, name), type)]


def public_members(cls):
    """Return the public members of a class that this package defines, with where they are."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("nixl_connect."):
            names = {*vars(base), *getattr(base, "__annotations__", ())}
            found |= {name: base for name in names if name[0] != "_"}
    if issubclass(cls, enum.Enum):
        found |= dict.fromkeys(cls.__members__, cls)
    return found


def dotted(node):
    """Return the class of nixl_connect that an annotation or an expression names; or nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "nc" else ""
    return ""


def used(source):
    """Return the names of nixl_connect that a program uses, and (class, member) pairs."""
    tree = ast.parse(source)
    names, pairs = set(), set()
    for node in ast.walk(tree):
        names.add(dotted(node))
        if isinstance(node, ast.Attribute):
            pairs.add((dotted(node.value), node.attr))
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        classes = {argument.arg: dotted(argument.annotation) for argument in node.args.args}
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
                pairs.add((classes.get(inner.value.id, ""), inner.attr))
            elif isinstance(inner, ast.ExceptHandler) and inner.name:
                classes[inner.name] = dotted(inner.type)
    return names - {""}, {pair for pair in pairs if pair[0]}


@pytest.fixture(scope="module")
def everything():
    return used((PROGRAMS / "everything.py").read_text())


def missing(everything, cls):
    """Return the members of a class that are used on no instance of where they are defined."""
    _, pairs = everything
    on = {}
    for name, member in pairs:
        on.setdefault(member, set()).add(getattr(nc, name))
    return [
        member
        for member, base in public_members(cls).items()
        if not any(issubclass(each, base) for each in on.get(member, ()))
    ]


def test_every_name(everything):
    names, _ = everything
    assert names == set(nc.__all__)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_member(everything, name):
    assert missing(everything, getattr(nc, name)) == []


def test_a_new_member_would_be_missed(everything):
    class Later(nc.ReadOperation):
        def rewind(self):
            pass

    Later.__module__ = "nixl_connect.later"
    assert missing(everything, Later) == ["rewind"]
    assert "results" in public_members(nc.ReadOperation)
    assert "wait_for_completion" in public_members(nc.ReadOperation)
    assert "close" in public_members(nc.Connector)
    assert "COMPLETE" in public_members(nc.OperationStatus)
    assert "ptr" in public_members(nc.SerializedDescriptor)
    assert "age" in public_members(nc.OperationReport)


def test_a_use_on_another_class_does_not_count():
    names, pairs = used(
        "def f(a: nc.Connector, b: int) -> None:\n    a.name\n    b.close\n    c.stats"
    )
    assert names == {"Connector"}
    assert pairs == {("Connector", "name")}


def check(value, hint):
    """Compare the keys and the values of a dict with the typed dict that it is said to be."""
    hints = get_type_hints(hint)
    assert list(value) == list(hints)
    for key, kind in hints.items():
        if isinstance(kind, type) and hasattr(kind, "__total__"):
            check(value[key], kind)
        elif isinstance(kind, type) and not hasattr(kind, "__origin__"):
            assert type(value[key]) is kind


def test_statistics_are_of_their_type(connector):
    connector.create_readable_blocking(nc.Descriptor(b"data")).cancel()
    stats = connector.stats()
    check(stats, statistics.Statistics)
    assert list(stats["ended"]) == list(statistics.KINDS)
    for ended in stats["ended"].values():
        check(ended, statistics.EndedFigures)
        assert {type(count) for count in ended["durations"]} == {int}
    assert {type(bound) for bound in stats["duration_bounds"]} == {float}
    library = get_type_hints(statistics.LibraryFigures)
    assert list(stats["library"]) == list(library)


def test_types_for_annotations_can_be_imported():
    """By programs that name them; nothing of the package imports them."""
    from nixl_connect.memory import data

    assert data.Data
    assert data.Stream


@pytest.mark.parametrize(
    "function",
    [nc.Blocks.__init__, nc.Lease.copy_from, nc.Lease.copy_to_blocking],
    ids=lambda function: function.__qualname__,
)
def test_annotations_can_be_read_at_run_time(function):
    """By those who check or inject arguments."""
    assert "data" in get_type_hints(function)

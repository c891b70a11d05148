"""Every public name of dynamo.nixl_connect beside ours; docs/howto/migrating.md has the rest."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment_of

HERE = Path(__file__).parents[1]
PAGE = HERE.parent / "docs" / "howto" / "migrating.md"
# What it is annotated with to return the object itself, or one of its class.
ITSELF = {"Self", "_Self"}
NAME = re.compile(r"`[A-Z]\w+(?:\.\w+)?`")


def walked(python, name):
    """Return what a library's classes are, told by a process of its environment."""
    run = subprocess.run(
        [python, str(HERE / "reference" / "walk.py"), name],
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
    )
    return json.loads(run.stdout.splitlines()[-1])


def rows():
    """Return the rows of the table: what, there, here, test."""
    lines = PAGE.read_text().splitlines()
    start = lines.index("| what | there | here, and why | test |") + 2
    table = [line for line in lines[start:] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def named(cell):
    """Return the classes and members that a row is about; none for one about behaviour."""
    names = cell.split(", ")
    return [name[1:-1] for name in names] if all(map(NAME.fullmatch, names)) else []


def is_extended(theirs, ours):
    """Whether what a caller of theirs gives, ours takes; it may have options of its own."""
    if any(kind == "VAR_POSITIONAL" for _, kind, _ in ours):  # as of __exit__
        return [item[0] for item in ours[:1]] == [item[0] for item in theirs[:1]]
    extra = ours[len(theirs) :]
    return ours[: len(theirs)] == theirs and all(default is not None for *_, default in extra)


def is_caught(theirs, ours):
    """Whether for each error that they document we document one that is caught as theirs is."""
    return all(any(set(kind) <= set(mine) for mine in ours) for kind in theirs)


def is_same(theirs, ours, name):
    """Whether a member serves callers as the reference's does."""
    if ours is None or theirs["is"] != ours["is"]:
        return False
    returned = {None: "None", **dict.fromkeys(ITSELF, name)}.get(ours["returns"], ours["returns"])
    expected = theirs["returns"] or "None"
    # The reference's own __enter__ is said to return a base of what it does.
    if ours["returns"] not in ITSELF and returned != expected:
        return False
    if not is_caught(theirs["raises"], ours["raises"]):
        return False
    if theirs["is"] == "property":
        return True
    # A class that nothing but a class of its kind makes has no parameters.
    return ours["parameters"] is not None and is_extended(theirs["parameters"], ours["parameters"])


def differences(theirs, ours):
    """Return the classes and members that are not the same."""
    for name, kind in theirs.items():
        mine = ours.get(name)
        if mine is None or kind.get("values") != mine.get("values"):
            yield name
            continue
        bases = [base for base in kind.get("bases", []) if base != "ABC"]
        if kind.get("fields", []) != mine.get("fields", []) or set(bases) - set(
            mine.get("bases", [])
        ):
            yield name
        for item, member in kind["members"].items():
            if not is_same(member, mine["members"].get(item), name):
                yield f"{name}.{item}"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("release", ["dynamo", "dynamo_next"])
def test_interface(release):
    """Beside the release that this library follows, and beside the next one."""
    python = environment_of(release)
    theirs, ours = walked(python, "dynamo"), walked(sys.executable, "nixl_connect")
    assert len(theirs) >= 17
    assert sum(len(kind["members"]) for kind in theirs.values()) > 90
    told = {name for row in rows() for name in named(row[0])}
    assert set(differences(theirs, ours)) == told


def test_a_difference_shows():
    """The comparison can fail: each change to a member is seen."""
    kind = {
        "is": "function",
        "parameters": [["self", "POSITIONAL_OR_KEYWORD", None], ["a", "KEYWORD_ONLY", "1"]],
        "returns": "int",
        "raises": [["ValueError"]],
    }
    assert is_same(kind, kind, "A")
    more = {**kind, "parameters": [*kind["parameters"], ["b", "KEYWORD_ONLY", "2"]]}
    assert is_same(kind, more, "A")
    assert is_same(kind, {**kind, "raises": [["RuntimeError", "ValueError"]]}, "A")
    for changed in (
        None,
        {"is": "coroutine"},
        {"returns": "str"},
        {"raises": [["TypeError"]]},
        {"parameters": kind["parameters"][:1]},
        {"parameters": [kind["parameters"][0], ["a", "KEYWORD_ONLY", "2"]]},
        {"parameters": [*kind["parameters"], ["b", "KEYWORD_ONLY", None]]},
    ):
        assert not is_same(kind, None if changed is None else kind | changed, "A"), changed


def test_every_difference_in_behaviour_has_a_test():
    for what, *_, test in rows():
        if named(what):
            assert not test, what
            continue
        path, _, name = test.strip("`").partition("::")
        (found,) = HERE.rglob(path)
        tree = ast.parse(found.read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test

"""Who imports whom, also within functions, for type checkers alone, and in C: no circles."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "nixl_connect"
_OF_C = re.compile(rf"^\s*from ({PACKAGE}[\w.]*) c?import \(?([\w, \n]*)", re.MULTILINE)


def files():
    """Return the sources of each module: those in Cython have two."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*")):
        if path.suffix in (".py", ".pyx", ".pxd"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            found.setdefault(name, []).append(path)
    return found


def named(path):
    """Yield what a file imports: the module, and the name of what it takes from there."""
    text = path.read_text()
    if path.suffix != ".py":
        for module, names in _OF_C.findall(text):
            for name in names.replace(",", " ").split():
                yield module, name
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        else:
            assert not isinstance(node, ast.ImportFrom) or not node.level, f"{path}: relative"


def imports():
    """Return which modules of the package each one imports."""
    modules = files()
    found = {}
    for module, paths in modules.items():
        used = {
            f"{origin}.{name}" if f"{origin}.{name}" in modules else origin
            for path in paths
            for origin, name in named(path)
        }
        found[module] = {name for name in used if name in modules} - {module}
    return found


def test_what_is_read():
    """Of each kind one import that is known."""
    found = imports()
    assert "nixl_connect.connector" in found["nixl_connect"]
    assert (
        "nixl_connect._native.hold" in found["nixl_connect.memory.descriptor"]
    )  # for type checkers
    assert "nixl_connect.monitor" in found["nixl_connect.connector"]  # within a function
    assert "nixl_connect._native.core" in found["nixl_connect._native.hold"]  # in C
    assert all("_native" in name for name in found["nixl_connect._native.hold"])


def test_no_file_is_in_a_circle():
    try:
        graphlib.TopologicalSorter(imports()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_native_code_knows_nothing_above():
    for module, used in imports().items():
        if module.startswith(f"{PACKAGE}._native."):
            above = [name for name in used if not name.startswith(f"{PACKAGE}._native")]
            assert not above, f"{module} imports {above}"

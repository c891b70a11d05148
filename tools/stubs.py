"""Write the type stubs of the extension modules, or check that those on disk are current.

stubgen-pyx reads the Cython sources. What it takes over and Python cannot see (C structs, typedefs,
C-level special methods) is removed here, so that ``stubtest`` finds nothing in a stub that the
built module lacks.

Usage: ``python tools/stubs.py [--check]``, from the root of the repository.
"""

import argparse
import ast
import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

NATIVE = Path("nixl_connect/_native")
HEADER = '# Made by "make stubs" from the .pyx file beside it: do not edit.\n'
# Special methods of an extension type that have no counterpart in Python.
C_METHODS = {
    "__cinit__",
    "__dealloc__",
    "__getbuffer__",
    "__releasebuffer__",
    "__richcmp__",
}

# Modules with classes that others derive from: those use what begins with an underscore, too.
BASES = {"handle", "prepared"}

# Special methods that an extension type takes by position only.
SLOTS = {
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("__getitem__", "__setitem__", "__delitem__", "__contains__"),
}

# Cython knows no more than "list" and "dict" of these parameters and results; callers are held to
# this. Each by module, class, function and parameter ("return" for the result), or attribute.
PRECISE = {
    "agent.Agent.partial_metadata.regions": "Regions | None",
    "reactor.Reactor.active.told_as": "bytes | None",
    "peer.PeerState.told_as": "bytes | None",
    "agent.Agent.create_backend.parameters": "dict[bytes, bytes]",
    "envelope.write.sections": "list[Section]",
    "envelope.names.sections": "list[Section]",
    "envelope.row_by_row.sections": "list[Section]",
    "lock.persist.work": "Callable[[], None]",
    "lock.persist.report": "Callable[[BaseException], None]",
    "collector.Collector.__new__.unknown": "list[tuple[float, Hold]]",
    "hold.Hold.acquire.owners": "list[object] | None",
    "request.add_part.owners": "list[object] | None",
    "ordinary.Ordinary.__new__.peers": "Mapping[str, PeerState]",
    "overlaps.between.return": "tuple[int, int] | None",
    "overlaps.within.return": "tuple[int, int] | None",
    "packing.Regions.join.tables": "list[Regions]",
    "plan.Local.__init__.memory": "list[object]",
    "packing.coalesce.edges": "list[int]",
    "ranges.RangeMap.add_many.items": "list[tuple[int, int, object]]",
    "readers.of_dicts.items": "list[object]",
    "readers.of_list.items": "Sequence[object]",
    "readers.of_list.return": "tuple[bytes, Regions] | None",
    "peer.PeerState.connections": "dict[str, bytes]",
    "peer.PeerState.everywhere": "dict[tuple[str, int, int], bytes]",
    "ordinary.Ordinary.__new__.read": "Callable[[str], tuple[bytes, Envelope]]",
    "ordinary.Ordinary.described.return": "tuple[bytes, Envelope]",
    "handle.Handle._connection": "object",
    "handle.Handle._native": "Operation | None",
    "handle.Handle._items": "Sequence[object]",
    "handle.Handle._descriptors": "Sequence[object]",
    "text.describe.return": "bytes | None",
    "prepared.Prepared.transfer_blocking.timeout": "float | None",
    "prepared.Prepared._native": "Operation | None",
    "handle.Offer._hold": "Hold | None",
    "handle.Offer._stream": "bytes | None",
    "handle.Offer._plain.return": "Sequence[object] | None",
    "ordinary.Ordinary.lanes": "list[tuple[Lane, Registry, Mapping[str, PeerState]]] | None",
    "ordinary.Ordinary.reference": "object",
    "span.have_streams.items": "Sequence[Span]",
}
# What they name; ruff removes what a stub does not use.
IMPORTS = """\
from collections.abc import Callable, Mapping, Sequence
from nixl_connect._native.envelope import Envelope
from nixl_connect._native.hold import Hold
from nixl_connect._native.lane import Lane
from nixl_connect._native.peer import PeerState
"""


def is_c_type(node: ast.stmt) -> bool:
    """Tell whether a statement stands for a C struct or a C typedef."""
    if isinstance(node, ast.ClassDef):
        return any(isinstance(base, ast.Name) and base.id == "TypedDict" for base in node.bases)
    return (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.annotation, ast.Name)
        and node.annotation.id == "TypeAlias"
    )


def is_private(node: ast.stmt) -> bool:
    """Tell whether a statement is the definition of a private name."""
    name = getattr(node, "name", "")
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        name = node.target.id
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
    return name.startswith("_") and not name.startswith("__")


def extension_types(source: str) -> dict[str, set[str]]:
    """Return the extension types of a Cython source, each with which constructors it has."""
    types: dict[str, set[str]] = {}
    name = ""
    for line in source.splitlines():
        if line[:1].strip():
            match = re.match(r"cdef class (\w+)", line)
            name = match[1] if match else ""
            if name:
                types[name] = set()
        match = re.match(r"    def (__c?init__)\(", line)
        if name and match:
            types[name].add(match[1])
    return types


def tidy_class(node: ast.ClassDef, constructors: set[str] | None) -> None:
    """Remove C-level methods and correct the signatures of the others.

    `constructors` is None for a class that is not an extension type.
    """
    body: list[ast.stmt] = []
    for item in node.body:
        if isinstance(item, ast.Assign):
            # A member of an enumeration, whose value is a constant of C.
            item.value = ast.Constant(...)
        if isinstance(item, ast.FunctionDef):
            if item.name in C_METHODS:
                continue
            if item.name == "__init__" and constructors == {"__cinit__"}:
                # Python calls __cinit__ from __new__, and the type has no other constructor.
                item.name = "__new__"
                item.args.args[0].arg = "cls"
                item.returns = ast.Name(node.name)
            elif item.name == "__init__":
                item.returns = ast.Constant(None)
            elif constructors is not None and item.name in SLOTS:
                item.args.posonlyargs, item.args.args = item.args.args, []
            decorators = {d.id for d in item.decorator_list if isinstance(d, ast.Name)}
            if "classmethod" in decorators:
                item.args.args[0].annotation = None
        body.append(item)
    node.body = body or [ast.Expr(ast.Constant(...))]


def refine(body: list[ast.stmt], scope: str, missing: set[str]) -> None:
    """Put in the types of `PRECISE`, and take those that were put in out of `missing`."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            refine(node.body, f"{scope}.{node.name}", missing)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = f"{scope}.{node.target.id}"
            if name in PRECISE:
                node.annotation = ast.Name(PRECISE[name])
                missing.discard(name)
        elif isinstance(node, ast.FunctionDef):
            name = f"{scope}.{node.name}"
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if f"{name}.{argument.arg}" in PRECISE:
                    argument.annotation = ast.Name(PRECISE[f"{name}.{argument.arg}"])
                    missing.discard(f"{name}.{argument.arg}")
            if f"{name}.return" in PRECISE:
                node.returns = ast.Name(PRECISE[f"{name}.return"])
                missing.discard(f"{name}.return")


def tidy(module: str, stub: str, source: str, missing: set[str]) -> str:
    """Return the stub of a Cython source without what exists in C only."""
    types = extension_types(source)
    tree = ast.parse(stub)
    tree.body = [node for node in tree.body if not is_c_type(node) and not is_private(node)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            if module not in BASES:
                node.body = [item for item in node.body if not is_private(item)]
            tidy_class(node, types.get(node.name))
    refine(tree.body, module, missing)
    own = f"from nixl_connect._native.{module} import"
    imports = "\n".join(line for line in IMPORTS.splitlines() if not line.startswith(own))
    tree.body[1 if ast.get_docstring(tree) else 0 : 0] = ast.parse(imports).body
    return HEADER + ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def run(*command: str) -> None:
    """Run a tool of this environment; show what it says only if it fails."""
    tool = Path(sys.executable).with_name(command[0])
    done = subprocess.run([str(tool), *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def generate(folder: Path) -> dict[Path, str]:
    """Return the stubs' paths and texts; `folder` is for intermediate files."""
    run(
        "stubgen-pyx",
        str(NATIVE),
        f"--output-dir={folder}",
        "--exclude-attribution",
        "--no-pxd-to-stubs",
        "--resolve-ctypedef-aliases",
        "--include-private",
    )
    stubs = {}
    missing = set(PRECISE)
    for source in sorted(NATIVE.glob("*.pyx")):
        stub = folder / f"{source.stem}.pyi"
        stub.write_text(tidy(source.stem, stub.read_text(), source.read_text(), missing))
        stubs[source.with_suffix(".pyi")] = stub
    if missing:
        sys.exit(f"PRECISE has what is in no source: {', '.join(sorted(missing))}")
    names = [str(stub) for stub in stubs.values()]
    settings = ["--quiet", "--no-cache", "--config=pyproject.toml"]
    run("ruff", "check", "--fix-only", "--select=F401,I", *settings, *names)
    run("ruff", "format", *settings, *names)
    texts = {path: stub.read_text() for path, stub in stubs.items()}
    for path, text in texts.items():
        if "Incomplete" in text:
            source = path.with_suffix(".pyx")
            sys.exit(f"{source}: a type is unknown; cimport it there, not in the .pxd only\n{text}")
        if re.search(r"\bAny\b", text):
            sys.exit(f"{path}: a type is vague; add what is Any to PRECISE\n{text}")
    return texts


def main() -> int:
    """Write the stubs, or with ``--check`` say how they differ; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        stubs = generate(Path(folder))
    stale = False
    for path in sorted({*stubs, *NATIVE.glob("*.pyi")}):
        old = path.read_text() if path.exists() else ""
        new = stubs.get(path, "")
        if old == new:
            continue
        stale = True
        if check:
            lines = difflib.unified_diff(
                old.splitlines(), new.splitlines(), str(path), "from the sources", lineterm=""
            )
            print("\n".join(lines))
        elif new:
            path.write_text(new)
            print(f"wrote {path}")
        else:
            path.unlink()
            print(f"removed {path}")
    if check and stale:
        print('The stubs are stale: run "make stubs".', file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Changes the library in one place at a time, and sees whether a test fails.

    python tests/mutants/mutate.py python --each 4
    python tests/mutants/mutate.py native
    python tests/mutants/mutate.py native --only delivery --first 3

Python is changed by the operators of cosmic-ray, at places drawn at random; native code as
``native.py`` says, each of whose mutants is compiled. A mutant is killed if one of its tests fails,
or does not end. Prints which, and those that survive. What is changed is a copy of the package and
its tests, in build/mutants. Run by `make mutants`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parent))
from native import MUTANTS

ROOT = Path(__file__).parents[2]
PACKAGE = "nixl_connect"
# Seconds until a mutant's tests count as hanging.
PATIENCE = 240
# Modules of Python that promises rest on, and the tests that look at them.
MODULES = {
    "checks": "test_checks operations/test_bad_input operations/test_durations",
    "permit": "operations/test_signals engine/test_offload",
    "status": "native/test_status operations/test_api test_errors",
    "peers/ledger": "peers/test_ledger peers/test_peers",
    "peers/peers": "peers/test_peers peers/test_gone peers/test_hang_up",
    "peers/peer": "peers/test_peer peers/test_peers peers/test_ledger",
    "peers/identity": "peers/test_peers peers/test_gone",
    "peers/registrations": "peers/test_registrations memory/test_blocks",
    "engine/keeper": "engine/test_reaper operations/test_closing",
    "engine/kept": "operations/test_keep",
    "engine/starter": "operations/test_lifecycle operations/test_transfer peers/test_peers",
    "engine/options": "engine/test_options",
    "engine/statistics": "engine/test_statistics",
    "engine/connection": "operations/test_closing operations/test_api",
    "wire/auth": "wire/test_auth",
    "wire/codec": "wire/test_codec wire/test_metadata",
    "wire/metadata": "wire/test_metadata wire/test_models wire/test_many",
    "pool/slabs": "pool/test_pool pool/test_waiting",
    "pool/waiter": "pool/test_waiting",
    "operations/passive": "operations/test_lifecycle operations/test_offers_to_many",
    "operations/active": "operations/test_api operations/test_lifecycle operations/test_bad_input",
    "operations/parts": "operations/test_parts",
    "operations/base": "operations/test_lifecycle operations/test_bad_input",
    "memory/descriptor": "memory/test_descriptor memory/test_protocols",
    "memory/tables": "memory/test_tables wire/test_many",
    "memory/overlaps": "memory/test_overlaps operations/test_within",
    "arrays/manifest": "named/test_messages named/test_named_arrays",
}
# What changes nothing, or only what is written for type checkers.
NOT = re.compile(r"BitOr|RemoveDecorator|VariableInserter|VariableReplacer")


class Mutated(NamedTuple):
    """A change: where, what it is, and the tests that are to see it."""

    path: str
    text: str
    tests: list[str]


def python_mutants(each: int, seed: int) -> Iterator[Mutated]:
    """Yield so many mutants of each module of Python."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    rng = random.Random(seed)
    names = [name for name in sorted(operator_names()) if not NOT.search(name)]
    for module, tests in MODULES.items():
        path = f"{PACKAGE}/{module}.py"
        source = (ROOT / path).read_text()
        tree = get_ast(source)
        places = []
        for name in names:
            operator = get_operator(name)()
            count = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
            places += [(name, i) for i in range(count)]
        rng.shuffle(places)
        made = 0
        for name, occurrence in places:
            if made == each:
                break
            text = mutate_code(source, get_operator(name)(), occurrence)
            if text is not None and text != source and _is_code(source, text):
                made += 1
                yield Mutated(path, text, files(tests))


def _is_code(source: str, text: str) -> bool:
    """Whether a change is of what runs: not of a message, an annotation or an import."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    lines = [line for line in changed(source, text) if line.startswith("+")]
    return not any(
        re.match(r"\+\s*(from|import|raise|logger|class|f?\"|@|__all__)", line)
        or "TYPE_CHECKING" in line
        or "TypeVar" in line
        for line in lines
    )


def native_mutants(only: str) -> Iterator[Mutated]:
    """Yield the mutants of the native code, of one module or all."""
    for mutant in MUTANTS:
        if only and mutant.module != only:
            continue
        path = f"{PACKAGE}/_native/{mutant.module}.pyx"
        source = (ROOT / path).read_text()
        assert source.count(mutant.was) == 1, (path, mutant.was, source.count(mutant.was))
        yield Mutated(path, source.replace(mutant.was, mutant.now), files(mutant.tests))


def files(tests: str) -> list[str]:
    """Return the paths of tests that are named in short."""
    return [f"tests/{name}.py" for name in dict.fromkeys(tests.split())]


def changed(source: str, text: str) -> list[str]:
    """Return the lines that differ."""
    return [
        line
        for line in difflib.unified_diff(source.splitlines(), text.splitlines(), n=0, lineterm="")
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]


def compile_native(path: Path) -> None:
    """Compile one module of a copy, where it stands, without much optimisation."""
    sys.path.insert(0, str(ROOT))
    from setup import DIRECTIVES

    made = path.with_suffix(".c")
    options = [f"-X{name}={value}" for name, value in DIRECTIVES.items()]
    subprocess.run(
        [sys.executable, "-m", "cython", *options, "-o", str(made), str(path)],
        cwd=path.parents[2],
        check=True,
        capture_output=True,
    )
    module = path.with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))
    module.unlink()
    include = sysconfig.get_paths()["include"]
    command = f"gcc -shared -fPIC -O1 -w -std=gnu11 -pthread -DNIXL_CONNECT_DEBUG=0 -I{include}"
    subprocess.run([*command.split(), str(made), "-o", str(module), "-ldl"], check=True)


class Tree:
    """A copy of the package and its tests, on which mutants live."""

    def __init__(self) -> None:
        folder = ROOT / "build" / "mutants"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(dir=folder))
        for name in (PACKAGE, "tests", "tools", "bench", "docs"):
            shutil.copytree(ROOT / name, self.path / name, symlinks=True)
        shutil.copy(ROOT / "pyproject.toml", self.path)
        self._sound: set[tuple[str, ...]] = set()
        self._compiled: set[str] = set()

    def what_fails(self, mutated: Mutated) -> str:
        """Return which test fails with a mutant, which the copy has meanwhile; "" if none."""
        path = self.path / mutated.path
        native = path.suffix == ".pyx"
        if native and mutated.path not in self._compiled:
            # All that follows is of modules that are compiled here: that alone kills nothing.
            self._compiled.add(mutated.path)
            compile_native(path)
            self._prove(mutated.tests[:1])
        if tuple(mutated.tests) not in self._sound:
            self._prove(mutated.tests)
            self._sound.add(tuple(mutated.tests))
        module = path.with_suffix(sysconfig.get_config_var("EXT_SUFFIX")) if native else path
        kept, source = module.read_bytes(), path.read_text()
        path.write_text(mutated.text)
        try:
            if native:
                compile_native(path)
            return self._failing(mutated.tests)
        finally:
            # Others may have loaded the file that it is a name of; or nothing was compiled.
            module.unlink(missing_ok=True)
            module.write_bytes(kept)
            path.write_text(source)

    def _prove(self, tests: list[str]) -> None:
        """Show that tests pass without a mutant."""
        failing = self._failing(tests)
        assert not failing, f"fails without a mutant: {failing}"

    def _failing(self, tests: list[str]) -> str:
        """Run tests on the copy; return the first that fails, or how they end otherwise."""
        environment = os.environ | {
            "PYTHONPATH": str(self.path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONSAFEPATH": "1",
            "LIFE_EXAMPLES": "15",
        }
        command = [*(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"), *tests]
        with tempfile.TemporaryFile("w+") as told:
            # In a session of its own, all of which is ended where it hangs: its peers, too.
            run = subprocess.Popen(
                command,
                cwd=self.path,
                env=environment,
                stdout=told,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                code = run.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                return "hangs"
            finally:
                subprocess.run(["pkill", "-KILL", "-s", str(run.pid)], check=False)
                run.wait()
            told.seek(0)
            failed = re.search(r"^(?:FAILED|ERROR) (\S+)", told.read(), re.MULTILINE)
        if code == 0:
            return ""
        return failed[1] if failed else f"ends with {code}"

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="mutate.py", description=__doc__)
    parser.add_argument("what", choices=("python", "native"))
    parser.add_argument(
        "--each", type=int, default=4, help="of each module of Python (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="a native module")
    parser.add_argument("--first", type=int, default=0, help="begin with this one")
    parser.add_argument("--most", type=int, default=10_000, help="how many")
    parser.add_argument("--strict", action="store_true", help="end with an error if one survives")
    options = parser.parse_args()
    if options.what == "native":
        mutants = list(native_mutants(options.only))
    else:
        mutants = list(python_mutants(options.each, options.seed))
    mutants = mutants[options.first : options.first + options.most]
    survivors, began, tree = [], time.monotonic(), Tree()
    try:
        for number, mutated in enumerate(mutants, options.first):
            failing = tree.what_fails(mutated)
            how = f"killed by {failing}" if failing else "SURVIVES"
            print(f"{number} {mutated.path}: {how}", flush=True)
            for line in changed((ROOT / mutated.path).read_text(), mutated.text):
                print(f"    {line}", flush=True)
            if not failing:
                survivors.append(number)
    finally:
        tree.remove()
    print(
        f"{len(mutants)} mutants, {len(survivors)} survive, {time.monotonic() - began:.0f} s: "
        f"{survivors}"
    )
    return 1 if options.strict and survivors else 0


if __name__ == "__main__":
    sys.exit(main())

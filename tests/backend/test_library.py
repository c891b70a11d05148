"""Finding NIXL's C library: the order of the search, and what is said when there is none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import build

from nixl_connect.backend import library

NAME = "libnixl_capi.so"
# Looks in the given folders alone, as a process does whose environment has no NIXL.
ONLY_HERE = """
import json, os, sys, sysconfig
from nixl_connect import LibraryError
from nixl_connect.backend import library
library.sysconfig.get_path = lambda name: ""
sys.path[:] = json.loads(sys.argv[1])
"""


def run(code, *folders, **environment):
    """Run Python in a process of its own, away from the checkout; return what it printed."""
    clean = {k: v for k, v in os.environ.items() if k not in (library.VARIABLE, "LD_LIBRARY_PATH")}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([str(folder) for folder in folders])],
        check=False,
        cwd="/",
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def load(*folders, **environment):
    """Return path, source and version of what is loaded, or the text of the LibraryError."""
    code = ONLY_HERE + (
        "try:\n    print(json.dumps(library.load()))\n"
        "except LibraryError as error:\n    print(json.dumps(str(error)))\n"
    )
    return json.loads(run(code, *folders, **environment))


@pytest.fixture(scope="module")
def real():
    """The library that this environment has."""
    path = Path(library.load().path)
    if path.name != NAME or not path.is_absolute():
        pytest.skip("needs NIXL's library as a wheel has it")
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A library of NIXL's name with one of its functions, as a version long past."""
    folder = tmp_path_factory.mktemp("old")
    source = folder / "old.c"
    source.write_text("int nixl_capi_create_agent(void) { return 0; }\n")
    return build([source], folder / NAME)


@pytest.fixture
def garbage(tmp_path):
    path = tmp_path / "garbage" / NAME
    path.parent.mkdir()
    path.write_bytes(b"\x7fELF and then nothing of the kind" * 10)
    return path


def install(folder, wheel, path, version=None):
    """Lay out a wheel that brings the library `path`; return where that then is."""
    folder.mkdir(exist_ok=True)
    libs = folder / f".{wheel}.mesonpy.libs"
    # Not the file alone: it finds what it needs by its own place.
    libs.symlink_to(path.parent)
    if version is not None:
        (folder / f"{wheel}-{version}.dist-info").mkdir()
    return libs / NAME


# --- where --------------------------------------------------------------------------------------


def candidates(*folders, **environment):
    code = ONLY_HERE + "print(json.dumps(library.candidates()))"
    return [tuple(item) for item in json.loads(run(code, *folders, **environment))]


def test_order(tmp_path, garbage):
    one, two = tmp_path / "one", tmp_path / "two"
    twelve = install(one, "nixl_cu12", garbage, "1.4.1")
    thirteen = install(two, "nixl_cu13", garbage, "1.5.1")
    install(two, "nixl_cu12", garbage, "0.1")  # a second of the same wheel is not seen
    system = (NAME, "system", None)
    assert candidates(one, two) == [
        (str(thirteen), "nixl-cu13", "1.5.1"),
        (str(twelve), "nixl-cu12", "1.4.1"),
        system,
    ]
    assert candidates(tmp_path) == [system]
    assert candidates() == [system]


def test_variable_goes_before_all(tmp_path, garbage):
    install(tmp_path, "nixl_cu13", garbage)
    named = {library.VARIABLE: "/some/where/lib.so"}
    assert candidates(tmp_path, **named) == [("/some/where/lib.so", library.VARIABLE, None)]


def test_empty_variable_is_none(tmp_path):
    assert candidates(tmp_path, **{library.VARIABLE: ""}) == [(NAME, "system", None)]


def test_wheel_without_a_version(tmp_path, garbage):
    path = install(tmp_path, "nixl_cu12", garbage)
    assert candidates(tmp_path)[0] == (str(path), "nixl-cu12", None)


def test_search_path_was_trimmed():
    """The interpreter's own folders are searched even where sys.path has lost them."""
    code = """
import json, sys, sysconfig
from nixl_connect.backend import library
print(json.dumps(library.candidates()))
own = {sysconfig.get_path("platlib"), sysconfig.get_path("purelib")}
sys.path[:] = [folder for folder in sys.path if folder not in own]
print(json.dumps(library.candidates()))
"""
    before, after = run(code).splitlines()
    assert after == before


# --- loading ------------------------------------------------------------------------------------


def test_variable(real, tmp_path, garbage):
    install(tmp_path, "nixl_cu13", garbage)
    assert load(tmp_path, **{library.VARIABLE: str(real)}) == [str(real), library.VARIABLE, None]


@pytest.mark.parametrize("wheel", ["nixl_cu12", "nixl_cu13"])
def test_wheel(real, tmp_path, wheel):
    path = install(tmp_path, wheel, real, "1.5.1")
    assert load(tmp_path) == [str(path), wheel.replace("_", "-"), "1.5.1"]


def test_system(real, tmp_path):
    assert load(tmp_path, LD_LIBRARY_PATH=str(real.parent)) == [NAME, "system", None]


def test_broken_wheel_does_not_hide_a_good_one(real, old, tmp_path):
    install(tmp_path, "nixl_cu13", old, "1.0")
    path = install(tmp_path, "nixl_cu12", real, "1.5.1")
    assert load(tmp_path) == [str(path), "nixl-cu12", "1.5.1"]


def test_broken_wheel_does_not_hide_the_system(real, garbage, tmp_path):
    install(tmp_path, "nixl_cu13", garbage)
    assert load(tmp_path, LD_LIBRARY_PATH=str(real.parent)) == [NAME, "system", None]


def test_once_per_process(real):
    """The library stays, whatever the variable says later: NIXL's threads are in it."""
    code = f"""
import os
from nixl_connect.backend import library
first = library.load()
assert library.load() == first
os.environ["{library.VARIABLE}"] = "/absent/{NAME}"
assert library.load().path == first.path
del os.environ["{library.VARIABLE}"]
print(library.load().path)
"""
    assert run(code, **{library.VARIABLE: str(real)}) == str(real)


# --- not there ----------------------------------------------------------------------------------


def says_what_to_do(text):
    """Whether the first sentence has the commands, with torch and without; all is one line."""
    first, _, rest = text.partition(". ")
    return (
        all(
            part in first
            for part in (
                "`pip install -U --no-deps 'nixl-cu12>=1.3.1,<2'`",
                "nixl-cu13",
                "`pip install 'nixl-connect[cu12]'`",
                "[cu13]",
                "torch",
            )
        )
        and library.VARIABLE in text.partition(" Tried: ")[0]
        and "\n" not in text
        and "Tried: " in rest
    )


def test_missing(tmp_path):
    text = load(tmp_path)
    assert says_what_to_do(text)
    assert text.startswith("NIXL cannot be loaded: install it with `pip install ")
    assert f"{NAME} (system)" in text


@pytest.mark.parametrize("path", [f"/absent/{NAME}", "/", "/dev/null", "relative.so", "\u00e4.so"])
def test_variable_leads_nowhere(path, real, tmp_path):
    """What was asked for by name is not replaced by something else."""
    install(tmp_path, "nixl_cu12", real, "1.5.1")
    text = load(tmp_path, **{library.VARIABLE: path})
    assert says_what_to_do(text)
    assert text.startswith(f"NIXL cannot be loaded: set {library.VARIABLE} to the path of {NAME},")
    assert f"{path} ({library.VARIABLE})" in text
    assert "nixl-cu12 " not in text.split("Tried:")[1]


def test_garbage(garbage):
    text = load(**{library.VARIABLE: str(garbage)})
    assert says_what_to_do(text)
    assert f"{garbage} ({library.VARIABLE})" in text


def test_too_old(old):
    text = load(**{library.VARIABLE: str(old)})
    assert says_what_to_do(text)
    assert "lacks" in text
    assert "nixl_capi_create_configured_agent" in text
    assert "nixl_capi_get_notifs" in text


def test_all_that_was_tried_is_named(old, garbage, tmp_path):
    thirteen = install(tmp_path, "nixl_cu13", garbage)
    twelve = install(tmp_path, "nixl_cu12", old)
    tried = load(tmp_path).split("Tried:")[1]
    assert [tried.index(part) for part in (f"{thirteen} (", f"{twelve} (", f"{NAME} (system)")] == (
        sorted(tried.index(part) for part in (f"{thirteen} (", f"{twelve} (", f"{NAME} (system)"))
    )


def test_first_use_raises_and_a_later_one_may_succeed(real):
    code = f"""
import os
import nixl_connect as nc
connector = nc.Connector()
descriptor = nc.Descriptor(bytearray(8))
assert connector.stats() == {{}}
for make in (connector.create_readable_blocking, connector.create_writable_blocking,
             descriptor.register_memory):
    try:
        make(connector if make == descriptor.register_memory else descriptor)
    except nc.LibraryError as error:
        assert isinstance(error, ImportError) and isinstance(error, nc.NixlConnectError)
        assert "pip install" in str(error)
    else:
        raise AssertionError
assert not descriptor.is_registered
os.environ["{library.VARIABLE}"] = {str(real)!r}
with connector, connector.create_readable_blocking(descriptor) as operation:
    print(operation.status)
"""
    assert run(code, **{library.VARIABLE: f"/absent/{NAME}"}) == "INIT"


def test_first_use_raises_in_a_coroutine():
    code = """
import asyncio
import nixl_connect as nc
async def main():
    async with nc.Connector() as connector:
        try:
            await connector.create_readable(nc.Descriptor(bytearray(8)))
        except nc.LibraryError as error:
            print("pip install" in str(error))
asyncio.run(main())
"""
    assert run(code, **{library.VARIABLE: f"/absent/{NAME}"}) == "True"


def copied(real, folder):
    """Return a copy of the wheel's libraries: another NIXL, as far as the loader knows."""
    copy = folder / real.parent.name
    shutil.copytree(real.parent, copy)
    bundled = real.parent.parent / f"{real.parent.name.split('.')[1]}.libs"
    (folder / bundled.name).symlink_to(bundled)
    return copy / NAME


def test_another_nixl_was_loaded_before(real, tmp_path):
    """The one that is named is refused; without a name, the one that is there is taken."""
    other = copied(real, tmp_path)
    code = (
        f"import ctypes; ctypes.CDLL({str(other)!r}); "
        + ONLY_HERE
        + (
            "try:\n    print(json.dumps(library.load()))\n"
            "except LibraryError as error:\n    print(json.dumps(str(error)))\n"
        )
    )
    site = real.parent.parent
    text = json.loads(run(code, **{library.VARIABLE: str(real)}))
    assert f"{other.with_name('libnixl.so')} is in use already" in text
    # The loader finds by its name what is loaded.
    assert json.loads(run(code, site)) == [NAME, "system", None]
    assert json.loads(run(code, tmp_path, site))[0] == str(other)


def test_another_nixl_is_loaded_later(real, tmp_path):
    other = copied(real, tmp_path)
    code = (
        "import ctypes, json, nixl_connect; from nixl_connect import LibraryError\n"
        "connector = nixl_connect.Connector()\n"
        "connector.create_readable_blocking(nixl_connect.Descriptor(bytearray(8))).cancel()\n"
        f"ctypes.CDLL({str(other.with_name('libnixl.so'))!r})\n"
        "try:\n    nixl_connect.Connector()._open()\n"
        "except LibraryError as error:\n    print(json.dumps(str(error)))\n"
        "connector.close_blocking()\n"
    )
    text = json.loads(run(code, **{library.VARIABLE: str(real)}))
    assert text.startswith("There are two NIXLs in this process")
    assert str(other.with_name("libnixl.so")) in text
    assert str(real.with_name("libnixl.so")) in text

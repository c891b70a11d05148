"""Finds and loads NIXL's C library."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import threading
from typing import NamedTuple

from nixl_connect._native import capi
from nixl_connect.backend.inheritance import keep_from_children
from nixl_connect.errors import LibraryError

VARIABLE = "NIXL_CONNECT_LIBRARY"
_NAME = "libnixl_capi.so"
# What the C library stands on. Two of them share global state, and neither works.
_CORE = "libnixl.so"
# The answer comes first. Without torch, which NIXL's wheels declare and do not need, and with it.
_INSTALL = (
    "install it with `pip install -U --no-deps 'nixl-cu12>=1.3.1,<2'` (CUDA 13: nixl-cu13), or "
    "together with torch, which it declares, `pip install 'nixl-connect[cu12]'` (or [cu13])"
)
_ELSEWHERE = f"set {VARIABLE} to the path of {_NAME}"
_TWO = "There are two NIXLs in this process, which cannot work: "
_lock = threading.RLock()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603, a thread that is not in the child may have held it
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Library(NamedTuple):
    """A place where NIXL's C library may be."""

    path: str
    """File name, or a bare name for the system's search path."""

    source: str
    """What led there: the variable, the name of a wheel, or ``"system"``."""

    version: str | None
    """NIXL's version, where its wheel tells."""


def candidates() -> list[Library]:
    """List the libraries to try, in order: the variable's alone if set, wheels, the system's."""
    named = os.environ.get(VARIABLE)
    if named:
        return [Library(named, VARIABLE, None)]
    found = []
    for wheel in ("nixl_cu13", "nixl_cu12"):
        for folder in _site_folders():
            path = os.path.join(folder, f".{wheel}.mesonpy.libs", _NAME)
            if os.path.isfile(path):
                found.append(Library(path, wheel.replace("_", "-"), _wheel_version(folder, wheel)))
                break
    return [*found, Library(_NAME, "system", None)]


def _site_folders() -> list[str]:
    names: list[object] = list(sys.path)
    # The interpreter's own folders come with sys.path nearly always; the rest is for programs that
    # trimmed it.
    # It may not see itself; CPython 3.13 then has an AttributeError.
    with contextlib.suppress(AttributeError, ImportError, OSError):
        names += sysconfig.get_path("platlib"), sysconfig.get_path("purelib")
    # Anybody may have put anything into sys.path: what names no folder is passed over.
    found = (os.fsdecode(name) for name in names if isinstance(name, (str, bytes)) and name)
    return [name for name in dict.fromkeys(found) if "\0" not in name]


def _wheel_version(folder: str, wheel: str) -> str | None:
    with contextlib.suppress(OSError):  # a folder may be entered and not be listed
        for name in os.listdir(folder):
            if name.startswith(f"{wheel}-") and name.endswith(".dist-info"):
                return name[len(wheel) + 1 : -len(".dist-info")]
    return None


def _cores() -> set[str]:
    """Return where this process has NIXL's core library from: two places are one too many."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            lines = maps.read().splitlines()
    except OSError:
        return set()  # a process that may not see itself: then nothing is known to be wrong
    paths = {line.split(maxsplit=5)[5] for line in lines if _CORE in line}
    return {os.path.realpath(path) for path in paths if os.path.basename(path).startswith(_CORE)}


def load() -> Library:
    """Load NIXL's C library, once per process, and say which one it is.

    Raises
    ------
    LibraryError
        None can be loaded; the text says what was tried and what to install. Or there are two NIXLs
        in this process.
    """
    with _lock:
        loaded = capi.loaded_from()
        present = _cores()
        if len(present) > 1:
            raise LibraryError(_TWO + " and ".join(sorted(present)))
        tried = []
        for library in candidates():
            if loaded is not None and library.path != loaded:
                continue
            core = os.path.realpath(os.path.join(os.path.dirname(library.path), _CORE))
            if present and core not in present and os.path.isfile(core):
                other = " and ".join(present)
                tried.append(f"{library.path} ({library.source}): {other} is in use already")
                continue
            try:
                capi.load(library.path)
            except capi.LoadError as error:
                tried.append(f"{library.path} ({library.source}): {error}")
            else:
                present = _cores()
                if len(present) > 1:
                    raise LibraryError(_TWO + " and ".join(sorted(present)))
                keep_from_children(library.path)
                return library
        if loaded is not None:
            keep_from_children(loaded)
            return Library(loaded, "loaded before", None)
    if os.environ.get(VARIABLE):
        advice = f"{_ELSEWHERE}, or unset it and {_INSTALL}."
    else:
        advice = f"{_INSTALL}. For a library elsewhere {_ELSEWHERE}."
    raise LibraryError(f"NIXL cannot be loaded: {advice} Tried: {'; '.join(tried)}")

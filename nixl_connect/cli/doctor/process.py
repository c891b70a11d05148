"""What this process has been given: variables, limits, a home, signals. Nothing is changed."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path
from typing import Any

_VARIABLES = ("UCX_", "NIXL_", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
# The command itself sets this one.
_OWN = ("UCX_LOG_FILE", "stderr")


def variables() -> dict[str, str]:
    """Return the variables of the user that change what UCX, NIXL and this package do."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES) and (name, value) != _OWN
    }


def home() -> dict[str, Any]:
    """Return where NIXL looks for its configuration, and whether this process may look there."""
    named = os.environ.get("NIXL_CONFIG_FILE")
    path = os.environ.get("HOME")
    where = named or (None if path is None else str(Path(path) / ".nixl.cfg"))
    return {"path": path, "configuration": where, "is_reachable": _is_reachable(where)}


def _is_reachable(path: str | None) -> bool:
    try:
        Path(path or "/").stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return True


def open_files() -> dict[str, Any]:
    """Return how many files this process may have open, and may allow itself; None for no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "soft": None if soft == resource.RLIM_INFINITY else soft,
        "hard": None if hard == resource.RLIM_INFINITY else hard,
    }


def count_open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208, one is the folder itself


def caught_signals() -> set[int]:
    """Return the numbers of the signals for which this process has a handler."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    mask = int(found.group(1), 16) if found else 0
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def signal_names(numbers: set[int]) -> list[str]:
    """Return the names of signals."""
    known = {item.value: item.name for item in signal.Signals}
    return [known.get(number, f"signal {number}") for number in sorted(numbers)]

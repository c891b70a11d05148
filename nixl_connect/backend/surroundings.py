"""Says what around the process keeps NIXL from starting: of some it logs nothing itself.

Asked when something has failed, and then only: a text, that ends the message of an error.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

_CONFIGURED = "NIXL_CONFIG_FILE"
_TELEMETRY = "NIXL_TELEMETRY_DIR"
_RDMA = Path("/sys/class/infiniband")
_LOGGED = "what it logged says why (NIXL_LOG_LEVEL=DEBUG for more)"


def why_no_agent(name: str) -> str:
    """Say why NIXL may have refused to make an agent.

    Parameters
    ----------
    name : str
        The agent's, as NIXL was told.
    """
    return _why_no_configuration() or _why_no_telemetry(name) or _LOGGED


def why_no_transport() -> str:
    """Say why NIXL may have refused to start a transport."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and _RDMA.is_dir() and any(_RDMA.iterdir()):
        return (
            f"{_LOGGED}; RDMA devices need locked memory, of which this process may have "
            f"{limit} bytes: raise the limit (ulimit -l unlimited)"
        )
    return _LOGGED


def _why_no_configuration() -> str:
    """Say why NIXL cannot read its configuration; nothing if it can, or has none."""
    named = os.environ.get(_CONFIGURED)
    home = os.environ.get("HOME")
    candidates = [Path(named)] if named is not None else []
    if named is None and home is not None:
        candidates.append(Path(home) / ".nixl.cfg")
    if named is None:
        candidates.append(Path("/etc/nixl.cfg"))
    for path in candidates:
        try:
            with path.open("rb") as file:
                file.read(1)
        except (FileNotFoundError, NotADirectoryError):
            if named is None:
                continue  # to the next
            return f"{_CONFIGURED} is {named!r}, and there is no such file: correct or unset it"
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            return (
                f"NIXL looks for its configuration in {path}, and this process may not ({reason}): "
                f"set HOME to a folder of this user, or `export {_CONFIGURED}=/dev/null`"
            )
        return _why_not_toml(path)
    return ""


def _why_not_toml(path: Path) -> str:
    try:
        import tomllib
    except ImportError:  # before Python 3.11
        return ""
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"NIXL cannot read its configuration {path}: {error}"
    return ""


def _why_no_telemetry(name: str) -> str:
    """Say why NIXL cannot write the telemetry of an agent; nothing if it can, or is not to."""
    folder = os.environ.get(_TELEMETRY)
    if folder is None:
        return ""
    path = Path(folder) / name
    # Not the paths' own methods, which raise where this process may not look.
    if not os.path.isdir(folder):
        reason = "is no folder that this process sees"
    elif not os.access(folder, os.W_OK | os.X_OK) or (
        os.path.exists(path) and not os.access(path, os.W_OK)
    ):
        reason = "is a folder in which this process may not write"
    else:
        return ""
    return (
        f"{_TELEMETRY} is {folder!r}, which {reason}: name one where NIXL may keep a file for each "
        "agent, or unset it"
    )

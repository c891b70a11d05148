"""The command ``nixl-connect doctor``: gathers the findings, tries a transfer, prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import sys
from collections.abc import Iterator
from typing import Any

from nixl_connect._version import __version__
from nixl_connect.cli.children import Children
from nixl_connect.cli.doctor import advice, process, selftest, system, view
from nixl_connect.cli.errors import ChildError, CommandError

_PROBE = "nixl_connect.cli.doctor.probe"
_TIMEOUT = 60.0
_LOG_LINES = 20


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; return 0 if the self-test passed."""
    with _patience():
        report = examine(_user(arguments.user))
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(view.lines(report)))
    return 0 if report["self_test"]["passed"] else 1


def _user(name: str | None) -> pwd.struct_passwd | None:
    if name is None:
        return None
    if os.geteuid() != 0:
        raise CommandError("--as: only root can start a process of another user", status=2)
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise CommandError(f"--as: there is no user {name!r}", status=2) from None


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Say on a terminal that there is something to wait for, and take it back."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    print("examining, and trying a transfer ...", end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\x1b[K", end="", file=sys.stderr, flush=True)


def examine(user: pwd.struct_passwd | None = None) -> dict[str, Any]:
    """Return all findings. The keys are stable: programs read them.

    Parameters
    ----------
    user : struct_passwd, optional
        Who the second process of the self-test is of, if not of this one's user.

    Returns
    -------
    dict
        ``version``, ``host``, ``nixl``, ``ucx``, ``process``, ``shared_memory``, ``permissions``,
        ``huge_pages``, ``network``, ``rdma``, ``gpus``, ``self_test`` and ``advice``, a list of
        sentences.
    """
    report: dict[str, Any] = {
        "version": __version__,
        "host": system.host(),
        **_probe(),
        "process": {
            "variables": process.variables(),
            "home": process.home(),
            "open_files": process.open_files(),
        },
        "shared_memory": system.shared_memory(),
        "permissions": system.permissions(),
        "huge_pages": system.huge_pages(),
        "network": system.network(),
        "rdma": system.rdma(),
    }
    report["gpus"] = {**system.gpus(), "usable": report.pop("cuda_available")}
    if report["nixl"]["error"] is None:
        report["self_test"] = selftest.self_test(user)
    else:
        report["self_test"] = {"passed": False, "error": "not run: NIXL does not start", "log": ""}
    report["self_test"]["user"] = None if user is None else user.pw_name
    report["advice"] = advice.advise(report)
    return report


def _probe() -> dict[str, Any]:
    """Have a child start NIXL, and return what it reported before its end."""
    nixl: dict[str, Any] = {
        "found": False,
        "path": None,
        "source": None,
        "version": None,
        "plugins": [],
        "signals": [],
        "error": None,
        "log": "",
    }
    transport: dict[str, Any] = {
        "path": None,
        "version": None,
        "settings": {
            name: value for name, value in process.variables().items() if name.startswith("UCX_")
        },
        "transports": [],
        "error": None,
    }
    cuda_available = None
    failing = nixl
    try:
        with Children() as children:
            children.start("probe", _PROBE)
            while True:
                _, message = children.receive(_TIMEOUT)
                event = message.pop("event")
                if event == "library":
                    nixl.update(found=True, **message)
                elif event == "plugins":
                    nixl.update(message)
                    failing = transport
                elif event == "ucx":
                    transport.update(message)
                elif event == "cuda":
                    cuda_available = message["available"]
                else:
                    break
            children.finish(_TIMEOUT)
    except ChildError as error:
        failing["error"] = error.reason
        nixl["log"] = "\n".join(error.log.splitlines()[-_LOG_LINES:])
    return {"nixl": nixl, "ucx": transport, "cuda_available": cuda_available}

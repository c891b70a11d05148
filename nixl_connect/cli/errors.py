"""Errors of the command line, which `main` turns into one line and an exit status."""

from __future__ import annotations

import importlib.util


class CommandError(Exception):
    """The command cannot go on; the text is for the user.

    Attributes
    ----------
    status : int
        Exit status: 1 for a failure, 2 for a command that cannot run as asked.
    """

    def __init__(self, text: str, *, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class ChildError(CommandError):
    """A child process failed, died or did not answer in time.

    Attributes
    ----------
    kind : str
        Name of the error in the child; empty if the child could not tell.
    reason : str
        Its text, without the name of the child.
    """

    def __init__(self, text: str, *, kind: str = "", reason: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.reason: str = reason or text


def require_extra(*names: str) -> None:
    """Raise CommandError unless these packages are installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"this needs {' and '.join(missing)}: pip install 'nixl-connect[cli]'", status=2
        )

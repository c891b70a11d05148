"""Errors of the command line, which `main` turns into one line and an exit status."""

from __future__ import annotations

import importlib.util

from nixl_connect.errors import LibraryError, NixlConnectError


class CommandError(Exception):
    """The command cannot go on; the text is for the user.

    Attributes
    ----------
    status : int
        Exit status: 1 for a failure, 2 for a command that cannot run as asked.
    is_shown : bool
        Whether it is in JSON that has been printed already.
    """

    def __init__(self, text: str, *, status: int = 1, is_shown: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.is_shown = is_shown


def failure(error: NixlConnectError) -> CommandError:
    """Return what to raise where the library fails."""
    return CommandError(str(error), status=2 if isinstance(error, LibraryError) else 1)


class ChildError(CommandError):
    """A child process failed, died or did not answer in time.

    Attributes
    ----------
    kind : str
        Name of the error in the child; empty if the child could not tell.
    reason : str
        Its text, without the name of the child.
    headline : str
        The text without what the child wrote last.
    log : str
        The last that the child wrote to its standard error, where NIXL and UCX log.
    """

    def __init__(self, text: str, *, kind: str = "", reason: str = "", log: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.reason: str = reason or text
        self.headline: str = text.partition("; its last words:")[0]
        self.log = log


def require_extra(*names: str) -> None:
    """Raise CommandError unless these packages are installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"this needs {' and '.join(missing)}: pip install 'nixl-connect[cli]'", status=2
        )

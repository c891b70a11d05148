"""The command ``nixl-connect``.

Nothing of the library imports this package. The module of a command is imported when it is run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from nixl_connect.cli.errors import CommandError
from nixl_connect.cli.text import printable

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0 if the command succeeded, 1 if not, 2 if it cannot run as asked, 130 if interrupted.
    """
    from nixl_connect.cli import arguments

    # Before UCX is loaded, which logs to the standard output otherwise: that is for results.
    os.environ.setdefault("UCX_LOG_FILE", "stderr")
    chosen = arguments.parse(argv)
    try:
        return _run(chosen)
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does. The interpreter's own flush at exit
        # must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(chosen: argparse.Namespace) -> int:
    try:
        status: int = chosen.run(chosen)
        sys.stdout.flush()
    except CommandError as error:
        # It may have in it what somebody else said.
        text = "\n".join(map(printable, str(error).split("\n")))
        print(f"nixl-connect: {text}", file=sys.stderr)
        if chosen.json and not error.is_shown:
            print(json.dumps({"error": str(error)}), flush=True)
        return error.status
    except KeyboardInterrupt:
        print("nixl-connect: interrupted", file=sys.stderr)
        return 130
    return status

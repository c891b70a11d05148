"""File descriptors, which UCX must not run out of."""

from __future__ import annotations

import contextlib
import os

from nixl_connect.errors import BackendError


def require_files(pairs: int, what: str) -> None:
    """Raise BackendError unless so many pairs of file descriptors are to be had.

    UCX aborts the process where some of its own are refused.

    Parameters
    ----------
    pairs : int
        How many pairs.
    what : str
        What needs them, for the message.
    """
    with contextlib.ExitStack() as opened:
        try:
            for _ in range(pairs):
                for number in os.pipe():
                    opened.callback(os.close, number)
        except OSError as error:
            raise BackendError(
                f"{what} may need {2 * pairs} file descriptors more: {error.strerror}"
            ) from None

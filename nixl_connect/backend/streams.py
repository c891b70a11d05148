"""Keeps UCX's sockets from the numbers of standard input, output and error.

A process that was started with one of these closed gives its number to what it opens next. Whatever
then prints would write into a connection to a peer, and whatever closes "its" stream end that.
"""

from __future__ import annotations

import contextlib
import os

_STANDARD = range(3)


def occupy() -> None:
    """Have those that are closed refer to /dev/null, as daemons do; for good.

    They are close-on-exec, so that programs that this one starts find them as it did.
    """
    with contextlib.suppress(OSError):
        while True:
            # The lowest number that is free.
            number = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if number not in _STANDARD:
                os.close(number)
                break

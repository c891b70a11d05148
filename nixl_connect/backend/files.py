"""Refuses work that would run out of file descriptors: UCX would abort the process."""

from __future__ import annotations

import os
import resource

from nixl_connect.errors import BackendError


def require_files(count: int, what: str) -> None:
    """Raise BackendError unless so many file descriptors are to be had.

    UCX aborts the process where some of its own are refused. They are counted, not taken: another
    thread may need one just now.

    Parameters
    ----------
    count : int
        How many.
    what : str
        What needs them, for the message.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir("/proc/self/fd")) - 1
    except FileNotFoundError:
        return  # without /proc nobody can count
    except OSError:
        used = limit  # not even one
    if limit != resource.RLIM_INFINITY and limit - used < count:
        raise BackendError(
            f"{what} may need {count} file descriptors, and {used} of {limit} are in use: "
            "raise the limit (ulimit -n)"
        )

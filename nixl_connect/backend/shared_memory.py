"""Whether UCX may take shared memory from the file system that it uses for that."""

from __future__ import annotations

import os
from collections.abc import Mapping

# UCX does without where there is less than 16 MiB. Where its own first pages make it less it loses
# count, and crashes: an agent takes some 4 MiB, and others may be started beside it.
_LEAST = 16 * 1024 * 1024
_EACH = 8 * 1024 * 1024
_FOLDER = "/dev/shm"  # UCX's own default


def is_usable(settings: Mapping[bytes, bytes], together: int) -> bool:
    """Whether there is enough, and this process may make files there.

    Parameters
    ----------
    settings : mapping of bytes to bytes
        UCX's settings, without those of the environment.
    together : int
        How many agents are started at the same time.
    """
    given = settings.get(b"POSIX_DIR", _FOLDER.encode())
    folder = os.environ.get("UCX_POSIX_DIR", os.fsdecode(given))
    try:
        system = os.statvfs(folder)
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    return system.f_bavail * system.f_frsize >= _LEAST + together * _EACH

"""Where ``nixl-connect top`` reads: the sockets that `nixl_connect.monitor` opens.

Others may open sockets too, in a folder that they made first. So only those of the user whose
processes are asked for are read, and what they tell is not believed before it has been looked at.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nixl_connect import monitor
from nixl_connect.cli.errors import CommandError
from nixl_connect.cli.top.snapshot import understood
from nixl_connect.engine.options import MONITOR

# Seconds for a process to answer. One that is stopped does not.
_PATIENCE = 2.0
# Bytes of an answer; hundreds of connectors with all that is told of each are less.
_LONGEST = 16 << 20
# Processes that are asked at a time.
_AT_A_TIME = 16
_ROOT = 0


class Sources:
    """The processes to show.

    Parameters
    ----------
    where : str or None
        A process id, a socket, or a folder of sockets; the folders of this user by default.

    Raises
    ------
    CommandError
        There is no such process, socket or folder, or it is not to be trusted.
    """

    def __init__(self, where: str | None) -> None:
        self._pid: int | None = None
        self._socket: Path | None = None
        self._user: int = os.getuid()
        """Whose processes."""
        self.silent: list[int] = []
        """Processes that did not answer at the last `read`, or not with what this can show."""
        self.refused: list[str] = []
        """Why folders were left out at the last `read`."""
        if where is not None and where.isdecimal():
            self._pid = _process(where)
            self._user = _owner(Path("/proc", where))  # root may ask for another's
        asked = os.environ.get(MONITOR, "")
        self._folders = [Path(asked)] if os.sep in asked else monitor.folders(self._user)
        if where is not None and self._pid is None:
            self._look_at(Path(where).resolve(), where)
        for folder in self._trusted():
            monitor.sweep(folder)

    def _look_at(self, path: Path, where: str) -> None:
        """Read from a path that was named. Root may look at whatever it names."""
        if path.is_socket():
            self._socket = path
        elif path.is_dir():
            self._folders = [path]
        else:
            raise CommandError(f"{where} is not a process, a socket or a folder", status=2)
        if os.getuid() == _ROOT:
            self._user = _owner(path)
        if path.is_dir() and not self._trusted():
            raise CommandError(self.refused[0], status=2)

    def _trusted(self) -> list[Path]:
        """Return the folders in which there are sockets of the user's processes alone."""
        reasons = {folder: self._refusal(folder) for folder in self._folders}
        self.refused = [reason for reason in reasons.values() if reason]
        return [folder for folder, reason in reasons.items() if reason is None]

    def _refusal(self, folder: Path) -> str | None:
        """Return why not to read from a folder, if so: nothing but that there is none yet."""
        try:
            monitor.check(folder, self._user)
        except PermissionError as error:
            return str(error)
        except OSError:
            return ""
        return None

    def read(self) -> list[dict[str, Any]]:
        """Return the snapshots of the processes that are there, by process id."""
        self.silent = []
        sockets: dict[Path, int] = {}
        if self._socket is not None:
            sockets = {self._socket: 0}
        else:
            for folder in self._trusted():
                sockets |= monitor.sockets(folder)
        if self._pid is not None:
            sockets = {path: pid for path, pid in sockets.items() if pid == self._pid}
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            found = list(threads.map(self._read, sockets, sockets.values()))
        return sorted((item for item in found if item is not None), key=lambda item: item["pid"])

    def _read(self, path: Path, pid: int) -> dict[str, Any] | None:
        """Return what one process tells; None if it has ended, or does not tell."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            try:
                connection.connect(str(path))
                if monitor.user_of(connection) == self._user:
                    told = _all_of(connection)
                    # Where it tells nothing it is closing, or this user is none of its own.
                    return understood(told) if told else None
            except (TimeoutError, BlockingIOError, ValueError):
                pass  # the second where those who asked before wait for it still
            except OSError:
                return None  # it was killed, or is just being opened
        self.silent.append(pid)
        return None


def _all_of(connection: socket.socket) -> bytes:
    """Return all that comes, up to a line's end.

    Raises
    ------
    TimeoutError
        It does not end in time.
    ValueError
        It is too long.
    """
    told = bytearray()
    end = time.monotonic() + _PATIENCE
    while not told.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(1 << 20)
        if not part:
            break
        told += part
        if len(told) > _LONGEST:
            raise ValueError(f"more than {_LONGEST} bytes")
    return bytes(told)


def _process(where: str) -> int:
    """Return the number of a process, which there may be or not."""
    with contextlib.suppress(ValueError):  # so many digits that Python refuses to read them
        return int(where)
    raise CommandError(f"there is no process {where:.20}...")


def _owner(path: Path) -> int:
    """Return the user whose a process, a folder or a socket is."""
    try:
        return path.stat().st_uid
    except OSError:
        kind = "process" if path.parent == Path("/proc") else "path"
        raise CommandError(f"there is no {kind} {path.name}") from None

"""Where ``nixl-connect top`` reads: the sockets that `nixl_connect.monitor` opens."""

from __future__ import annotations

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nixl_connect import monitor
from nixl_connect.cli.errors import CommandError
from nixl_connect.lifecycle import MONITOR

# Seconds for a process to answer. One that is stopped does not.
_PATIENCE = 2.0
# Bytes of an answer; a thousand connectors tell less.
_LONGEST = 64 << 20
# Processes that are asked at a time.
_AT_A_TIME = 16


class Sources:
    """The processes to show.

    Parameters
    ----------
    where : str or None
        A process id, a socket, or a folder of sockets; the folders of this user by default.

    Raises
    ------
    CommandError
        There is no such process, socket or folder.
    """

    def __init__(self, where: str | None) -> None:
        self._pid: int | None = None
        self._socket: Path | None = None
        self.silent: list[int] = []
        """Processes that did not answer at the last `read`, or in words of another version."""
        user = None
        if where is not None and where.isdecimal():
            self._pid = int(where)
            try:
                user = Path(f"/proc/{where}").stat().st_uid  # root may ask for another's
            except OSError:
                raise CommandError(f"there is no process {where}") from None
        asked = os.environ.get(MONITOR, "")
        self._folders = [Path(asked)] if os.sep in asked else monitor.folders(user)
        for folder in self._folders:
            monitor.sweep(folder)
        if where is not None and self._pid is None:
            path = Path(where)
            if path.is_socket():
                self._socket = path
            elif path.is_dir():
                self._folders = [path]
            else:
                raise CommandError(f"{where} is not a process, a socket or a folder", status=2)

    def read(self) -> list[dict[str, Any]]:
        """Return the snapshots of the processes that are there, by process id."""
        self.silent = []
        sockets: dict[Path, int] = {}
        for folder in self._folders:
            sockets |= monitor.sockets(folder)
        if self._socket is not None:
            sockets = {self._socket: 0}
        elif self._pid is not None:
            sockets = {path: pid for path, pid in sockets.items() if pid == self._pid}
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            found = list(threads.map(self._read, sockets, sockets.values()))
        return sorted((item for item in found if item is not None), key=lambda item: item["pid"])

    def _read(self, path: Path, pid: int) -> dict[str, Any] | None:
        """Return what one process tells; None if it has ended, or does not tell."""
        told = bytearray()
        end = time.monotonic() + _PATIENCE
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            try:
                connection.connect(str(path))
                while not told.endswith(b"\n") and len(told) <= _LONGEST:
                    connection.settimeout(max(end - time.monotonic(), 0.001))
                    part = connection.recv(1 << 20)
                    if not part:
                        break
                    told += part
            except (TimeoutError, BlockingIOError):
                # The latter where those who asked before wait for it still.
                self.silent.append(pid)
                return None
            except OSError:
                return None  # it was killed, or is just being opened
        return self._understood(bytes(told), pid)

    def _understood(self, told: bytes, pid: int) -> dict[str, Any] | None:
        if not told:
            return None  # it is closing, or this user is none of its own
        try:
            snapshot: dict[str, Any] = json.loads(told)
            if set(snapshot) >= {"pid", "program", "clock", "connectors"}:
                for connector in snapshot["connectors"]:
                    _check(connector)
                return snapshot
        except (ValueError, TypeError, KeyError):
            pass
        self.silent.append(pid)
        return None


def _check(connector: dict[str, Any]) -> None:
    """Raise KeyError or TypeError unless there is what this version shows."""
    connector["id"], connector["name"], connector["operations"], connector["peers"]
    stats = connector["stats"]
    for group, key in (
        ("operations", "phases"),
        ("operations", "held_bytes"),
        ("operations", "quarantined_bytes"),
        ("registrations", "bytes"),
        ("peers", "count"),
        ("peers", "reloads"),
    ):
        stats[group][key]
    stats["ended"], stats["duration_bounds"]

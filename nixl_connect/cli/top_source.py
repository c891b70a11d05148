"""Where ``nixl-connect top`` reads: the sockets that `nixl_connect.monitor` opens."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from nixl_connect import monitor
from nixl_connect.cli.errors import CommandError
from nixl_connect.lifecycle import MONITOR

# Seconds for a process to answer. One that is stopped does not.
_PATIENCE = 2.0
# Bytes of an answer; a thousand connectors tell less.
_LONGEST = 64 << 20


class Sources:
    """The processes to show.

    Parameters
    ----------
    where : str or None
        A process id, a socket, or a folder of sockets; the folder of this user by default.

    Raises
    ------
    CommandError
        There is no such process, socket or folder.
    """

    def __init__(self, where: str | None) -> None:
        asked = os.environ.get(MONITOR, "")
        self._path = monitor.folder() if asked in ("", "0", "1") else Path(asked)
        self._pattern = "*.sock"
        self.silent: list[int] = []
        """Processes that did not answer in time at the last `read`."""
        if where is not None and where.isdecimal():
            self._pattern = f"{where}-*.sock"
        elif where is not None:
            self._path = Path(where)
            if not self._path.exists():
                raise CommandError(f"{where} is not a process, a socket or a folder", status=2)

    def read(self) -> list[dict[str, Any]]:
        """Return the snapshots of the processes that are there, by process id."""
        self.silent = []
        paths = [self._path] if self._path.is_socket() else self._path.glob(self._pattern)
        found = []
        for path in paths:
            snapshot = self._read(path)
            if snapshot is not None:
                found.append(snapshot)
        return sorted(found, key=lambda snapshot: int(snapshot["pid"]))

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return what one process tells; None if it has ended."""
        told = bytearray()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            try:
                connection.connect(str(path))
                while len(told) <= _LONGEST and (part := connection.recv(1 << 20)):
                    told += part
            except ConnectionRefusedError:
                # Whose process was killed, or is just being opened.
                return None
            except TimeoutError:
                pid = path.name.partition("-")[0]
                self.silent.append(int(pid) if pid.isdecimal() else 0)
                return None
            except OSError:
                return None
        try:
            snapshot = json.loads(told)
            return snapshot if isinstance(snapshot["connectors"], list) else None
        except (ValueError, TypeError, KeyError):
            return None

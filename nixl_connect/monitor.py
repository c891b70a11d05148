"""A local socket that tells what the connectors of this process do, for ``nixl-connect top``.

It is opened only when asked: by `serve`, or, when the first connector opens, by the variable
NIXL_CONNECT_MONITOR, which is 1 or the path of a folder. Whoever connects gets one line of JSON,
`snapshot`, and then the end; nothing is read. The socket lies in a folder that only its user may
enter, and only its user and root are answered. No metadata, no key and no byte of anybody's data is
told.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import logging
import os
import secrets
import socket
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nixl_connect._version import __version__
from nixl_connect.errors import BackendError, NixlConnectError
from nixl_connect.lifecycle import MONITOR, Lifecycle, connectors

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Monitor", "folder", "serve", "snapshot"]

# How many operations and peers of a connector are told one by one.
_MOST = 100
# Seconds for a client to take its answer; others wait meanwhile.
_PATIENCE = 2.0
# A socket may refuse for so long (seconds) since nobody listens there yet.
_YOUNG = 10.0
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: process, user, group

logger: logging.Logger = logging.getLogger(__name__)
_lock = threading.RLock()
_monitors: set[Monitor] = set()
_asked = False


def folder() -> Path:
    """Return where the sockets of this user's processes are, unless they are told otherwise."""
    user = os.getuid()
    run = Path(f"/run/user/{user}")
    if os.access(run, os.W_OK):
        return run / "nixl_connect"
    return Path(tempfile.gettempdir(), f"nixl_connect-{user}")


def snapshot() -> dict[str, Any]:
    """Return what the connectors of this process hold and do, ready for JSON.

    Returns
    -------
    dict
        ``version``, ``pid``, ``program``, ``time`` (seconds of the epoch), ``clock`` (monotonic
        seconds, for rates), and ``connectors``: of each that is open its ``name``, its ``stats``,
        its oldest ``operations`` and its last used ``peers``, 100 of each at most.
    """
    told = [_connector(connector) for connector in connectors()]
    return {
        "version": __version__,
        "pid": os.getpid(),
        "program": Path(sys.argv[0] if sys.argv else "").name,
        "time": time.time(),
        "clock": time.monotonic(),
        "connectors": [item for item in told if item is not None],
    }


def _connector(connector: Lifecycle) -> dict[str, Any] | None:
    """Return what one connector does; None if it is not open."""
    connection = connector._connection
    if connection is None or connector._closed:
        return None
    try:
        stats = connector.stats()
        operations = [report._asdict() for report in connector.operations(limit=_MOST)]
        peers = [report._asdict() for report in connector.peers()[:_MOST]]
    except NixlConnectError:
        return None  # closed meanwhile
    for operation in operations:
        if operation["left"] == float("inf"):
            operation["left"] = None  # JSON has no infinity
    return {
        "name": connection.name,
        "stats": stats,
        "operations": operations,
        "peers": peers,
    }


class Monitor:
    """An open socket, and the thread that answers there. Closed by `close`, or leaving ``with``.

    Attributes
    ----------
    path : Path
        Of the socket.
    """

    def __init__(self, path: Path, listening: socket.socket) -> None:
        self.path = path
        self._listening = listening
        self._thread = threading.Thread(
            target=self._answer, name="nixl_connect-monitor", daemon=True
        )
        self._thread.start()

    def _answer(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                if self._listening.fileno() < 0 or self not in _monitors:
                    return
                time.sleep(0.1)  # out of file descriptors, say
                continue
            with client:
                try:
                    self._tell(client)
                except OSError:
                    pass  # it is gone, or slow
                except Exception:
                    logger.exception("%s: no snapshot", self.path)

    def _tell(self, client: socket.socket) -> None:
        told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(told)[1] not in (0, os.getuid()):
            return
        client.settimeout(_PATIENCE)
        client.sendall(json.dumps(snapshot(), allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Close the socket and remove it. Idempotent."""
        with _lock:
            if self not in _monitors:
                return
            _monitors.discard(self)
        with contextlib.suppress(OSError):
            self.path.unlink()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)
        self._listening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def serve(path: str | os.PathLike[str] | None = None) -> Monitor:
    """Open a socket that tells what the connectors of this process do.

    Parameters
    ----------
    path : str or PathLike, optional
        The folder to make it in; `folder()` by default. It is made if there is none, and must
        belong to this user and be closed to others.

    Raises
    ------
    BackendError
        The socket cannot be opened there. A RuntimeError.
    """
    where = folder() if path is None else Path(path).absolute()
    name = where / f"{os.getpid()}-{secrets.token_hex(3)}.sock"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        where.mkdir(mode=0o700, exist_ok=True)
        found = where.lstat()
        if not where.is_dir() or where.is_symlink() or found.st_uid != os.getuid():
            raise PermissionError(f"{where} is not a folder of this user")
        if found.st_mode & 0o077:
            raise PermissionError(f"{where} is open to others: chmod 700")
        _sweep(where)
        listening.bind(str(name))
        listening.listen(8)
    except OSError as error:
        listening.close()
        raise BackendError(f"cannot open a socket for nixl-connect top: {error}") from None
    with _lock:
        monitor = Monitor(name, listening)
        _monitors.add(monitor)
    return monitor


def _sweep(where: Path) -> None:
    """Remove the sockets of processes that were killed."""
    for path in where.glob("*.sock"):
        # Busy, or gone already, are of no interest.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if time.time() - path.stat().st_mtime > _YOUNG and (
                probe.connect_ex(str(path)) == errno.ECONNREFUSED
            ):
                path.unlink()


def serve_if_asked() -> None:
    """Open a socket if the environment asks for it and there is none; warn if that fails."""
    global _asked  # noqa: PLW0603, once for each process
    with _lock:
        asked = os.environ.get(MONITOR, "")
        if _asked or asked in ("", "0"):
            return
        _asked = True
    try:
        monitor = serve(None if asked == "1" else asked)
    except BackendError as error:
        logger.warning("%s=%s: %s", MONITOR, asked, error)
    else:
        logger.debug("%s: open", monitor.path)


def _after_fork_in_child() -> None:
    # The socket and its file are the parent's.
    global _lock, _asked  # noqa: PLW0603, a thread that is not in the child may have held it
    _lock = threading.RLock()
    for monitor in _monitors:
        monitor._listening.close()
    _monitors.clear()
    _asked = False


os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _close_all() -> None:
    for monitor in list(_monitors):
        monitor.close()

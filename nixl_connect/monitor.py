"""A local socket that reports what this process's connectors do, for ``nixl-connect top``.

It is opened only on request: by `serve`, or when the first connector opens, if the environment
variable NIXL_CONNECT_MONITOR is 1 or the path of a folder. A client that connects receives one line
of JSON, the result of `snapshot`, and then the end of the stream; nothing is read from it. The
socket is in a folder that only its user may enter, and it answers only its user and root. It
reveals no metadata, no keys and no data.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import logging
import os
import re
import secrets
import socket
import stat
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nixl_connect._native.lock import persist
from nixl_connect._version import __version__
from nixl_connect.backend import threads
from nixl_connect.engine.engine import Engine, engines
from nixl_connect.engine.options import MONITOR
from nixl_connect.engine.statistics import operations, peers, statistics
from nixl_connect.errors import BackendError, NixlConnectError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Monitor", "folders", "serve", "snapshot"]

# How many operations and peers of a connector are told one by one.
_MOST = 100
# Seconds for a client to take its answer; others wait meanwhile.
_PATIENCE = 2.0
# A socket may refuse for so long (seconds) since nobody listens there yet.
_YOUNG = 10.0
_NAME = re.compile(r"([0-9]{1,10})-[0-9a-f]{6}\.sock")
_CREDENTIALS = struct.Struct("iII")  # of SO_PEERCRED: process, user, group

logger: logging.Logger = logging.getLogger(__name__)
_lock = threading.RLock()
_monitors: set[Monitor] = set()
_asked = False


def folders(user: int | None = None) -> list[Path]:
    """Return the folders in which a user's processes open their sockets by default.

    Parameters
    ----------
    user : int, optional
        Id of the user; by default that of this process.

    Returns
    -------
    list of Path
        ``/run/user/UID/nixl_connect``, which exists while the user is logged in, and
        ``/tmp/nixl_connect-UID``. The first in which files can be created is used.
    """
    if user is None:
        user = os.getuid()
    return [Path(f"/run/user/{user}/nixl_connect"), Path(f"/tmp/nixl_connect-{user}")]


def check(folder: Path, user: int) -> None:
    """Raise PermissionError unless nobody but a user, and root, can have put sockets in a folder.

    Anybody may have made one in a place such as ``/tmp`` first.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user:
        whose = "this user" if user == os.getuid() else f"the user {user}"
        raise PermissionError(f"{folder} is not a folder of {whose}")
    if found.st_mode & 0o077:
        raise PermissionError(f"{folder} is open to others: chmod 700")


def user_of(connection: socket.socket) -> int:
    """Return the user of the process at the other end of a local socket, as the kernel knows it."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(told)[1]
    return user


def sockets(folder: Path) -> dict[Path, int]:
    """Return the sockets in a folder, and the ids of the processes that created them."""
    found = {}
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match:
                found[path] = int(match[1])
    return found


def snapshot() -> dict[str, Any]:
    """Return what the connectors of this process hold and do, in a form for JSON.

    Returns
    -------
    dict
        ``version``, ``pid``, ``program``, ``time`` (seconds since the epoch), ``clock`` (monotonic
        seconds, for rates), and ``connectors``: for each one that is open, an ``id``, its agent's
        ``name``, its ``stats``, its oldest ``operations`` and its most recently used ``peers``, at
        most 100 of each.
    """
    told = [_connector(engine) for engine in engines()]
    return {
        "version": __version__,
        "pid": os.getpid(),
        "program": Path(sys.argv[0] if sys.argv else "").name,
        "time": time.time(),
        "clock": time.monotonic(),
        "connectors": [item for item in told if item is not None],
    }


def _connector(engine: Engine) -> dict[str, Any] | None:
    """Return what the connector of one engine does; None if it is not open."""
    if engine.closed:
        return None
    try:
        stats = statistics(engine)
        oldest = [report._asdict() for report in operations(engine, 0.0, _MOST)]
        latest = [report._asdict() for report in peers(engine)[:_MOST]]
    except NixlConnectError:
        return None  # closed meanwhile
    for operation in oldest:
        if operation["left"] == float("inf"):
            operation["left"] = None  # JSON has no infinity
    return {
        "id": id(engine),
        "name": engine.name,
        "stats": stats,
        "operations": oldest,
        "peers": latest,
    }


class Monitor:
    """An open socket and the thread that answers on it. Closed by `close` or by leaving ``with``.

    Attributes
    ----------
    path : Path
        Path of the socket.
    """

    def __init__(self, path: Path, listening: socket.socket) -> None:
        self.path = path
        self._listening = listening
        self._client: socket.socket | None = None
        self._closed = False
        self._thread = threading.Thread(
            target=persist, args=(self._answer, _report), name="nixl_connect-monitor", daemon=True
        )

    def _start(self) -> None:
        with _lock:
            _monitors.add(self)  # first, so that a fork finds it
            threads.start(self._thread)

    def _answer(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listening.accept()
            except OSError:
                time.sleep(0 if self._closed else 0.1)  # out of file descriptors, say
                continue
            with client:
                self._client = client
                try:
                    self._tell(client)
                except OSError:
                    pass  # it is gone, or slow
                finally:
                    self._client = None
                    _hang_up(client)

    def _tell(self, client: socket.socket) -> None:
        if self._closed or user_of(client) not in (0, os.getuid()):
            return
        client.settimeout(_PATIENCE)
        answer = json.dumps(snapshot(), allow_nan=False).encode() + b"\n"
        # Not every program ignores SIGPIPE, and clients go when they like.
        client.sendall(answer, socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Close the socket and remove it. Idempotent."""
        with _lock:
            if self._closed:
                return
            self._closed = True
            _monitors.discard(self)
        with contextlib.suppress(OSError):
            self.path.unlink()
        _hang_up(self._listening)  # wakes who accepts
        client = self._client
        if client is not None:
            _hang_up(client)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)
        self._listening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _report(error: BaseException) -> None:
    logger.error("no snapshot", exc_info=error)


def _hang_up(connection: socket.socket) -> None:
    """Let the other side see the end, whoever has inherited the descriptor by a fork."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def serve(path: str | os.PathLike[str] | None = None) -> Monitor:
    """Open a socket that reports what the connectors of this process do.

    Parameters
    ----------
    path : str or PathLike, optional
        Folder for the socket; by default one of `folders`. It is created if it does not exist, and
        must belong to this user and be inaccessible to others.

    Raises
    ------
    BackendError
        The socket cannot be opened there, or its thread cannot be started. Also a RuntimeError.
    """
    *others, last = folders() if path is None else [Path(path)]
    for folder in others:
        with contextlib.suppress(OSError, RuntimeError):
            return _serve(folder)
    try:
        return _serve(last.absolute())
    except (OSError, RuntimeError) as error:
        raise BackendError(f"cannot open a socket for nixl-connect top: {error}") from None


def _serve(folder: Path) -> Monitor:
    folder.mkdir(mode=0o700, exist_ok=True)
    check(folder, os.getuid())
    sweep(folder)
    name = folder / f"{os.getpid()}-{secrets.token_hex(3)}.sock"
    monitor = Monitor(name, socket.socket(socket.AF_UNIX))
    try:
        monitor._listening.bind(str(name))
        monitor._listening.listen(8)
        monitor._start()
    except BaseException:
        monitor.close()
        raise
    return monitor


def sweep(folder: Path) -> None:
    """Remove the sockets of processes that were killed."""
    for path in sockets(folder):
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
        if asked != "1" and os.sep not in asked:
            raise BackendError("it must be 1, or the path of a folder")
        monitor = serve(None if asked == "1" else asked)
    except BackendError as error:
        logger.warning("%s=%s: %s", MONITOR, asked, error)
    else:
        logger.debug("%s: open", monitor.path)


def _after_fork_in_child() -> None:
    # The socket and its file are the parent's; so is a client that is being answered.
    global _lock, _asked  # noqa: PLW0603, a thread that is not in the child may have held it
    _lock = threading.RLock()
    for monitor in _monitors:
        monitor._closed = True
        monitor._listening.close()
        if monitor._client is not None:
            monitor._client.close()
    _monitors.clear()
    _asked = False


os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _close_all() -> None:
    for monitor in list(_monitors):
        monitor.close()

"""Goes first to a peer that could not be connected before.

Where a connection cannot be made to a process of this host that is gone, UCX keeps the socket that
it made for it until its worker is closed. Who asks again and again would run out of descriptors. So
an agent asks that does nothing else, and is closed: that takes some 30 ms, and leaves nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from nixl_connect._native.capi import NativeError
from nixl_connect._native.envelope import Envelope
from nixl_connect.files import require_files
from nixl_connect.startup import start_agent

# After a failure the same answer is given for so long (seconds) without asking.
_PAUSE = 0.25
# So many peers that could not be connected are remembered.
_MOST = 1024


class _Failure(NamedTuple):
    connections: dict[str, bytes]
    error: NativeError | None
    until: float


class Scout:
    """Which peers could not be connected, or were lost, and how to look for them again.

    Parameters
    ----------
    name : str
        The connection's.
    plugins : mapping of bytes to mapping of bytes to bytes
        Its transports, with their options.
    no_sections : bytes
        The end of metadata without regions.
    """

    def __init__(
        self, name: str, plugins: Mapping[bytes, Mapping[bytes, bytes]], no_sections: bytes
    ) -> None:
        self._name = name
        self._plugins = plugins
        self._no_sections = no_sections
        self._lock = threading.RLock()  # reentrant: for signal handlers
        self._failed: dict[str, _Failure] = {}

    def note(
        self, name: str, connections: dict[str, bytes], error: NativeError | None = None
    ) -> None:
        """Note that a peer was lost, or could not be connected for an error just now."""
        now = time.monotonic()
        until = now if error is None else now + _PAUSE
        with self._lock:
            known = self._failed.pop(name, None)
            if known is None or known.connections != connections or known.until <= now:
                # An error of its own: the other one holds frames.
                error = error and NativeError(error.status, error.call)
                known = _Failure(dict(connections), error, until)
            self._failed[name] = known
            if len(self._failed) > _MOST:
                del self._failed[next(iter(self._failed))]

    def look(self, peer: Envelope, blob: bytes) -> None:
        """Return at once for a peer of which nothing is noted; else try to connect.

        Raises
        ------
        NativeError
            It cannot be connected.
        BackendError
            NIXL can start no agent, or too few file descriptors are left.
        """
        with self._lock:
            failure = self._failed.get(peer.agent)
        if failure is None or failure.connections != peer.connections:
            return
        if failure.error is not None and time.monotonic() < failure.until:
            raise NativeError(failure.error.status, failure.error.call)
        require_files(48, f"looking for peer {peer.agent!r}")
        agent = start_agent(f"{self._name}/scout", self._plugins)
        try:
            agent.load_remote(blob[: peer.sections_at] + self._no_sections)
        finally:
            agent.close()

    def forget(self, name: str) -> None:
        """Note that a peer was connected."""
        with self._lock:
            self._failed.pop(name, None)

"""Goes first to a peer that could not be connected before.

Where UCX cannot make a connection, since the peer was a process of this host that is gone, it keeps
the socket that it made for it until its worker is closed. Who asks again and again would run out of
descriptors. So an agent asks that does nothing else, and is closed: that takes some 30 ms, and
leaves nothing.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping

from nixl_connect._native.capi import NativeError
from nixl_connect._native.envelope import Envelope
from nixl_connect.backend.agents import start_agent
from nixl_connect.backend.files import require_files
from nixl_connect.peers.identity import identity_of

# After a failure the same answer is given for so long (seconds) without asking.
_PAUSE = 0.25
# So many peers that could not be connected are remembered.
_MOST = 1024


class Scout:
    """Which peers could not be connected, and how to look for them again.

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
        self._failed: OrderedDict[bytes, tuple[float, int, str]] = OrderedDict()

    def note(self, peer: Envelope, error: NativeError) -> None:
        """Note that a peer could not be connected just now."""
        who = identity_of(peer.agent, peer.connections)
        with self._lock:
            self._failed.pop(who, None)
            # Not the error itself, which holds frames.
            self._failed[who] = time.monotonic() + _PAUSE, error.status, error.call
            if len(self._failed) > _MOST:
                self._failed.popitem(last=False)  # in one step: a signal handler may do so, too

    def look(self, peer: Envelope, blob: bytes) -> None:
        """Return at once for a peer of which nothing is noted; else try to connect.

        Raises
        ------
        NativeError
            It cannot be connected, or could not a moment ago.
        BackendError
            NIXL can start no agent, or too few file descriptors are left.
        """
        with self._lock:
            failure = self._failed.get(identity_of(peer.agent, peer.connections))
        if failure is None:
            return
        until, status, call = failure
        if time.monotonic() < until:
            raise NativeError(status, call)
        require_files(48, f"looking for peer {peer.agent!r}")
        agent = start_agent(f"{self._name}.scout", self._plugins)
        try:
            agent.load_remote(blob[: peer.sections_at] + self._no_sections)
        except NativeError as error:
            self.note(peer, error)
            raise
        finally:
            agent.close()

    def forget(self, peer: Envelope) -> None:
        """Note that a peer was connected."""
        with self._lock:
            self._failed.pop(identity_of(peer.agent, peer.connections), None)

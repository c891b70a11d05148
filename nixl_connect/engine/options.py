"""The options of a connector, checked."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nixl_connect.checks import count, seconds
from nixl_connect.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from nixl_connect.wire.auth import Seal

MONITOR = "NIXL_CONNECT_MONITOR"
"""Environment variable that opens a socket to watch connectors; see `nixl_connect.monitor`."""

# Thirty years of seconds: what clocks can add without a second thought.
_LONGEST = 1e9
_SHORTEST_INTERVAL = 1e-3
# A mover speaks every second.
_SHORTEST_SILENCE = 3.0
_LONGEST_NAME = 512


def worker_name(value: str | None) -> str:
    """Return `value` if it is the name of a worker; a random one for None."""
    if value is None:
        return os.urandom(16).hex()
    if not isinstance(value, str):
        raise ArgumentTypeError(f"worker_id must be a str or None, not {type(value).__name__}")
    if not value.isprintable() or not 0 < len(value.encode()) <= _LONGEST_NAME:
        raise ArgumentError(
            f"worker_id must be printable and of 1 to {_LONGEST_NAME} bytes, not {value!r}"
        )
    return value


@functools.cache
def memory_of_machine() -> int:
    """Return the machine's memory, bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


_MOST = sys.maxsize


class Options:
    """What `Connector` was given; see there. Not to be changed.

    Parameters
    ----------
    given : mapping of str to object
        The arguments by name; what is no option is passed over.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        def duration(name: str, longest: float = math.inf) -> float:
            return seconds(name, given[name], longest)

        def number(name: str) -> int:
            return count(name, given[name])

        self.timeout: float = duration("timeout")
        self.seal_lifetime: float = duration("seal_lifetime", _LONGEST)
        self.quarantine: float = duration("quarantine", _LONGEST)
        self.drain: float = duration("drain", _LONGEST)
        self.progress_interval: float = duration("progress_interval", _LONGEST)
        if 0 < self.progress_interval < _SHORTEST_INTERVAL:
            raise ArgumentError(
                f"progress_interval must be 0, or at least {_SHORTEST_INTERVAL:g} seconds, "
                f"not {self.progress_interval!r}"
            )
        self.peer_silence: float = 0.0
        if given["peer_silence"] is not None:
            self.peer_silence = duration("peer_silence", _LONGEST)
            if self.peer_silence < _SHORTEST_SILENCE:
                raise ArgumentError(
                    f"peer_silence must be None, or at least {_SHORTEST_SILENCE:g} seconds, "
                    f"not {self.peer_silence!r}"
                )
        # Beyond what memory there can be, one number is as good as another.
        self.max_descriptors: int = min(number("max_descriptors"), _MOST)
        self.max_metadata_bytes: int = number("max_metadata_bytes")
        self.max_peer_regions: int = number("max_peer_regions")
        self.max_quarantine_bytes: int = (
            memory_of_machine() // 4
            if given["max_quarantine_bytes"] is None
            else min(number("max_quarantine_bytes"), _MOST)
        )
        keys = given["keys"]
        self.seal: Seal | None = None
        if keys is not None:
            from nixl_connect.wire.auth import Seal  # late, with OpenSSL behind it

            self.seal = Seal(keys, self.seal_lifetime)
        self.plugins: dict[bytes, dict[bytes, bytes]] = _plugins(given["backends"])


def _plugins(
    backends: Sequence[str] | Mapping[str, Mapping[str, str]],
) -> dict[bytes, dict[bytes, bytes]]:
    try:
        if isinstance(backends, str):
            backends = [backends]
        if not isinstance(backends, Mapping):
            backends = {name: {} for name in backends}
        if not backends:
            raise ArgumentError("backends must name at least one, such as 'UCX'")
        return {
            name.encode(): {key.encode(): value.encode() for key, value in parameters.items()}
            for name, parameters in backends.items()
        }
    except (AttributeError, TypeError):
        raise ArgumentTypeError(
            "backends must be names, or a mapping of names to mappings of strings to strings"
        ) from None

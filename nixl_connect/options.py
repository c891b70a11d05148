"""The options of a connector, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nixl_connect.auth import Seal
from nixl_connect.errors import ArgumentError, ArgumentTypeError

# Thirty years of seconds: what clocks can add without a second thought.
_LONGEST = 1e9
_SHORTEST_INTERVAL = 1e-3


def seconds(name: str, value: float, longest: float = math.inf) -> float:
    """Return `value` if it is a duration: a number of seconds, not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{name} must be a number of seconds, not {value!r}")
    if math.isnan(value) or value < 0:
        raise ArgumentError(f"{name} must not be negative, but is {value!r}")
    if value > longest:
        raise ArgumentError(f"{name} must be at most {longest:g} seconds, not {value!r}")
    return float(value)


def count(name: str, value: int) -> int:
    """Return `value` if it is a limit: an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ArgumentError(f"{name} must be at least 1, not {value}")
    return value


@dataclass(frozen=True)
class Options:
    """What `Connector` was given; see there."""

    keys: bytes | Sequence[bytes] | None = field(repr=False)
    seal_lifetime: float
    timeout: float
    quarantine: float
    drain: float
    progress_interval: float
    backends: Sequence[str] | Mapping[str, Mapping[str, str]]
    max_descriptors: int
    max_metadata_bytes: int
    max_peer_regions: int
    seal: Seal | None = field(init=False, repr=False)
    plugins: dict[bytes, dict[bytes, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        seconds("timeout", self.timeout)
        for name in ("seal_lifetime", "quarantine", "drain", "progress_interval"):
            seconds(name, getattr(self, name), _LONGEST)
        if 0 < self.progress_interval < _SHORTEST_INTERVAL:
            raise ArgumentError(
                f"progress_interval must be 0, or at least {_SHORTEST_INTERVAL:g} seconds, "
                f"not {self.progress_interval!r}"
            )
        for name in ("max_descriptors", "max_metadata_bytes", "max_peer_regions"):
            count(name, getattr(self, name))
        seal = None if self.keys is None else Seal(self.keys, self.seal_lifetime)
        object.__setattr__(self, "seal", seal)
        object.__setattr__(self, "plugins", _plugins(self.backends))


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

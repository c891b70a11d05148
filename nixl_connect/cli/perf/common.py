"""What the parts of ``nixl-connect perf`` share: the bytes that are moved, figures, the sideband.

The sideband is a TCP connection with JSON, one object to a line: the client asks for memory of a
size, the server answers with metadata. What is measured goes through NIXL.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nixl_connect.cli.errors import CommandError

LONGEST_LINE = 1 << 20
"""Bytes of a message."""

# Not a power of two, so that a piece in the wrong place is found.
_BLOCK = (16 << 20) - 5


@dataclass
class Row:
    """What one size took in one direction."""

    direction: str
    nbytes: int
    transfers: int
    median: float
    p99: float
    fastest: float
    throughput: float
    """Bytes per second, of all transfers one after the other."""


def pattern(size: int) -> NDArray[np.uint8]:
    """Return the bytes that are moved, the same in every process."""
    block = np.random.default_rng(0).integers(0, 256, min(size, _BLOCK), np.uint8)
    return np.resize(block, size)


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach an address, or all that a name stands for.

    Raises
    ------
    CommandError
        There is no such name.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CommandError(f"{host:.80}: {error}", status=2) from None
    return all(ipaddress.ip_address(item[4][0]).is_loopback for item in found)


def proof(key: bytes, challenge: str) -> str:
    """Return what shows a server that a client has the key, which is not told."""
    return hmac.new(key, b"nixl-connect perf " + challenge.encode(), "sha256").hexdigest()


def read_key(path: Path | None) -> bytes | None:
    """Return the shared key in a file.

    Raises
    ------
    CommandError
        The file cannot be read, or is too short for a key.
    """
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", status=2) from None
    if len(key) < 16:
        raise CommandError(f"{path}: a key has 16 bytes or more", status=2)
    return key

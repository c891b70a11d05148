"""Which agent one is: by its name, which others may have, and by how it is reached."""

from __future__ import annotations

from collections.abc import Mapping

SIZE = 16
"""Bytes of a digest."""


def identity_of(name: str, connections: Mapping[str, bytes]) -> bytes:
    """Return a digest of an agent's name and connection info, which anybody may have made large.

    Parameters
    ----------
    name : str
        The agent's name.
    connections : mapping of str to bytes
        Its connection info, by backend.
    """
    import hashlib  # late, with OpenSSL behind it

    digest = hashlib.blake2b(name.encode(), digest_size=SIZE)
    for backend, info in sorted(connections.items()):
        digest.update(b"%d,%d,%s" % (len(backend), len(info), backend.encode()))
        digest.update(info)
    return digest.digest()

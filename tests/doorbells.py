"""Where doorbells are."""

from nixl_connect._native import envelope
from nixl_connect.peers.identity import identity_of


def address(connector):
    """The name of a connector's doorbell, in the abstract namespace."""
    described = envelope.parse(connector._open().metadata)
    digest = identity_of(described.agent, described.connections).hex()
    return b"\0nixl_connect/2/" + digest.translate(_LETTERS).encode()


_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")

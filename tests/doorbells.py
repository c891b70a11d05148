"""Where doorbells are."""

from nixl_connect._native import envelope
from nixl_connect.peers.identity import identity_of


def address(connector):
    """The name of a connector's doorbell, in the abstract namespace."""
    described = envelope.parse(connector._open().metadata)
    return named(identity_of(described.agent, described.connections))


def named(identity):
    """The name of an agent's doorbell, by its identity."""
    return b"\0nixl_connect/2/" + identity.hex().translate(_LETTERS).encode()


_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")

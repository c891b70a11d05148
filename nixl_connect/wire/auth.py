"""Seals metadata with a shared key, and checks seals.

A seal is part of the notification key, the one field that the owner of the memory chooses and every
peer returns unchanged. Peers that know nothing about seals therefore work with sealed metadata::

    <nonce>.s1.<expiry, seconds since the epoch>.<HMAC-SHA-256, base64 without padding>

The HMAC covers every field of the metadata, and the part of the notification key before it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable, Sequence

from nixl_connect._native import used
from nixl_connect.errors import ArgumentError, ArgumentTypeError, AuthenticationError
from nixl_connect.memory.descriptor import SerializedDescriptor
from nixl_connect.memory.tables import DescriptorTable
from nixl_connect.wire.codec import stream_of
from nixl_connect.wire.metadata import RdmaMetadata

MARK: str = used.MARK.decode()
_SHORTEST = 16
# The end of the year 9999: for seals that do not expire.
_LATEST = 253_402_300_799


class Seal:
    """Seals with the first of its keys, and accepts the seals of all of them.

    Parameters
    ----------
    keys : bytes or iterable of bytes
        One or more keys, each of 16 bytes or more.
    lifetime : float
        Seconds for which sealed metadata is accepted.
    """

    def __init__(self, keys: bytes | Iterable[bytes], lifetime: float) -> None:
        if isinstance(keys, (bytes, bytearray)):
            ordered = [keys]
        elif isinstance(keys, Iterable):
            ordered = list(keys)
        else:
            raise ArgumentTypeError(
                f"keys must be bytes, one or several, not {type(keys).__name__}"
            )
        if not ordered:
            raise ArgumentError("keys must not be empty")
        for key in ordered:
            if not isinstance(key, (bytes, bytearray)):
                raise ArgumentTypeError(f"keys must be bytes, not {type(key).__name__}")
            if len(key) < _SHORTEST:
                raise ArgumentError(f"keys must have {_SHORTEST} bytes or more, not {len(key)}")
        self._keys = [bytes(key) for key in ordered]
        self._lifetime = lifetime

    def seal(
        self,
        nonce: str,
        kind: int,
        stream: bytes,
        descriptors: Sequence[SerializedDescriptor],
        lifetime: float | None = None,
    ) -> str:
        """Return the notification key that seals these fields.

        Parameters
        ----------
        nonce : str
            Unique and unguessable.
        kind : int
            The operation's kind.
        stream : bytes
            NIXL's metadata, compressed: what its wire form encodes.
        descriptors : sequence of SerializedDescriptor
            The regions.
        lifetime : float, optional
            Seconds for which it is accepted at least, up to infinity; by default those of all
            seals, which is the least.
        """
        lifetime = self._lifetime if lifetime is None else max(lifetime, self._lifetime)
        head = f"{nonce}{MARK}{int(min(time.time() + lifetime, _LATEST))}"
        tag = _tag(self._keys[0], head, kind, stream, descriptors)
        return f"{head}.{tag}"

    def check(self, metadata: RdmaMetadata) -> None:
        """Raise AuthenticationError unless `metadata` is sealed, unaltered and not expired."""
        head, _, tag = metadata.notification_key.rpartition(".")
        _, mark, expiry = head.rpartition(MARK)
        if not mark or not expiry.isdecimal():
            raise AuthenticationError("the metadata is not sealed, and this connector has keys")
        try:
            metadata.notification_key.encode()
        except UnicodeEncodeError:
            raise AuthenticationError("the metadata's seal is not text") from None
        stream = stream_of(metadata.nixl_metadata)
        # Every key is tried, and the time taken does not tell which one fitted.
        accepted = False
        for key in self._keys:
            expected = _tag(key, head, metadata.operation_kind, stream, metadata.descriptors)
            accepted |= hmac.compare_digest(expected.encode(), tag.encode())
        if not accepted:
            raise AuthenticationError("the metadata's seal is wrong: another key, or altered")
        late = time.time() - int(expiry)
        if late > 0:
            raise AuthenticationError(
                f"the metadata's seal expired {late:.1f} s ago; clocks of machines should agree"
            )

    def sign(self, key: str, body: bytes) -> str:
        """Return a tag of what goes with sealed metadata, bound to its notification key."""
        return _signed(self._keys[0], key, body)

    def verify(self, key: str, body: bytes, tag: str) -> None:
        """Raise AuthenticationError unless `tag` is that of `sign`, with any of the keys."""
        accepted = False
        for secret in self._keys:
            accepted |= hmac.compare_digest(_signed(secret, key, body).encode(), tag.encode())
        if not accepted:
            raise AuthenticationError(
                "the seal of what goes with the metadata is missing or wrong: another key, or "
                "altered"
            )


def _signed(secret: bytes, key: str, body: bytes) -> str:
    # What starts like this is no input of `_tag`: there a length of eight bytes comes first.
    mac = hmac.new(secret, b"nixl_connect.body", digestmod=hashlib.sha256)
    for part in (key.encode(), body):
        mac.update(len(part).to_bytes(8, "little"))
        mac.update(part)
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()


def _tag(
    key: bytes,
    head: str,
    kind: int,
    stream: bytes,
    descriptors: Sequence[SerializedDescriptor],
) -> str:
    mac = hmac.new(key, digestmod=hashlib.sha256)
    # Lengths go first, so that no two sets of fields give the same bytes.
    for part in (head.encode(), stream):
        mac.update(len(part).to_bytes(8, "little"))
        mac.update(part)
    mac.update(f"{kind},{len(descriptors)}".encode())
    if isinstance(descriptors, DescriptorTable):
        mac.update(descriptors.listed())
    else:
        for item in descriptors:
            mac.update(f";{item.device},{item.ptr},{item.size}".encode())
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()

"""Seals: what a key covers, who is accepted, and for how long."""

import base64
import hashlib
import hmac
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixl_connect import AuthenticationError, NixlConnectError, RdmaMetadata, SerializedDescriptor
from nixl_connect._native.text import text_of
from nixl_connect.wire.auth import Seal

KEY = b"0123456789abcdef"
OTHER = b"fedcba9876543210"
STREAM = zlib.compress(b"what NIXL says")
REGIONS = [
    SerializedDescriptor(device="cuda:1", ptr=4096, size=16),
    SerializedDescriptor(device="cuda:1", ptr=8192, size=32),
]


def sealed(keys=KEY, lifetime=60, **fields):
    parts = {"nonce": "nonce", "kind": 1, "stream": STREAM, "descriptors": REGIONS} | fields
    return RdmaMetadata(
        descriptors=parts["descriptors"],
        nixl_metadata=text_of(parts["stream"]),
        notification_key=Seal(keys, lifetime).seal(**parts),
        operation_kind=parts["kind"],
    )


def altered(metadata, **fields):
    return RdmaMetadata.model_validate(metadata.model_dump() | fields)


def refused(metadata, keys=KEY, words=""):
    with pytest.raises(AuthenticationError) as caught:
        Seal(keys, 60).check(metadata)
    assert isinstance(caught.value, PermissionError)
    assert words in str(caught.value)
    assert KEY.decode() not in str(caught.value)


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    st.integers(1, 2),
    st.binary(max_size=50),
    st.lists(st.sampled_from(REGIONS), max_size=3),
)
def test_accepted(nonce, kind, stream, regions):
    metadata = sealed(nonce=nonce, kind=kind, stream=stream, descriptors=regions)
    assert metadata.notification_key.startswith(nonce)
    Seal(KEY, 60).check(metadata)


def test_accepted_after_a_journey():
    metadata = sealed()
    Seal(KEY, 60).check(RdmaMetadata.model_validate_json(metadata.model_dump_json()))
    Seal(KEY, 60).check(RdmaMetadata.from_bytes(metadata.to_bytes()))
    Seal(KEY, 60).check(altered(metadata, nixl_metadata=STREAM.hex()))


REGION = {"device": "cuda:1", "ptr": 4096, "size": 16}
SECOND = {"device": "cuda:1", "ptr": 8192, "size": 32}


@pytest.mark.parametrize(
    "fields",
    [
        {"operation_kind": 2},
        {"operation_kind": 0},
        {"nixl_metadata": text_of(zlib.compress(b"what nixl says"))},
        {"nixl_metadata": text_of(STREAM + b"\0")},
        {"nixl_metadata": text_of(STREAM[:-1])},
        {"nixl_metadata": ""},
        {"descriptors": []},
        {"descriptors": [REGION]},
        {"descriptors": [SECOND, REGION]},
        {"descriptors": [REGION, SECOND, SECOND]},
        {"descriptors": [REGION | {"ptr": 4097}, SECOND]},
        {"descriptors": [REGION | {"size": 17}, SECOND]},
        {"descriptors": [REGION | {"device": "cuda:2"}, SECOND]},
        {"descriptors": [REGION | {"device": "xpu:1"}, SECOND]},
        {"descriptors": [REGION | {"device": "cpu"}, SECOND]},
        {"descriptors": [REGION | {"size": 0}, SECOND]},
        {"descriptors": [REGION, SECOND | {"size": 2**40}]},
    ],
    ids=str,
)
def test_altered_field(fields):
    metadata = sealed()
    Seal(KEY, 60).check(altered(metadata))
    refused(altered(metadata, **fields), words="seal is wrong")


def test_every_altered_character_of_the_key():
    metadata = sealed()
    key = metadata.notification_key
    for i, character in enumerate(key):
        refused(
            altered(metadata, notification_key=key[:i] + chr(ord(character) ^ 1) + key[i + 1 :])
        )
        refused(altered(metadata, notification_key=key[:i] + key[i + 1 :]))
    refused(altered(metadata, notification_key=key + "A"))
    refused(altered(metadata, notification_key=key + "="))
    refused(altered(metadata, notification_key="x" + key))


def test_what_moved_between_fields():
    """The same characters, cut elsewhere, are other metadata."""
    one = sealed(nonce="ab", stream=STREAM)
    two = sealed(nonce="a", stream=b"b" + STREAM)
    assert one.notification_key.rpartition(".")[2] != two.notification_key.rpartition(".")[2]
    metadata = sealed(descriptors=REGIONS[:1])
    refused(altered(metadata, descriptors=[REGION | {"ptr": 409, "size": 616}]))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "nonce",
        "nonce.s1.",
        "nonce.s1.99999999999",
        "nonce.s1.99999999999.",
        "nonce.s1.99999999999.AAAA",
        "nonce.s1.soon.AAAA",
        "nonce.s1.-1.AAAA",
        "nonce.s1.1e12.AAAA",
        "nonce.s2.99999999999.AAAA",
        ".s1..",
        "....",
        "nonce.s1.99999999999.\u20ac",
        "nonce.s1.\u0661\u0662.AAAA",
        "nonce.s1." + "9" * 10_000 + ".AAAA",
    ],
    ids=lambda key: key[:30],
)
def test_unsealed(key):
    refused(altered(sealed(), notification_key=key))


def test_key_that_is_no_text():
    """Half a surrogate pair cannot come over the wire, but from a caller."""
    for key in ("\ud800", "nonce.s1.99999999999.\ud800", "\ud800.s1.99999999999.AAAA"):
        with pytest.raises(NixlConnectError):
            Seal(KEY, 60).check(RdmaMetadata(notification_key=key, nixl_metadata="00"))


def test_other_key():
    refused(sealed(keys=OTHER), words="seal is wrong")
    refused(sealed(keys=KEY + b"x"))
    refused(sealed(), keys=[OTHER, KEY[::-1]])


def test_rotation():
    """The first key seals, all are accepted: so keys change without a moment of refusal."""
    old, both, new = KEY, [OTHER, KEY], OTHER
    Seal(both, 60).check(sealed(keys=old))
    Seal(both, 60).check(sealed(keys=new))
    Seal(new, 60).check(sealed(keys=both))
    refused(sealed(keys=both), keys=old)
    refused(sealed(keys=old), keys=new)


def test_rotation_of_what_goes_with_metadata():
    """Likewise for a tag of anything else."""
    old, both, new = (Seal(keys, 60) for keys in (KEY, [OTHER, KEY], OTHER))
    both.verify("key", b"body", old.sign("key", b"body"))
    both.verify("key", b"body", new.sign("key", b"body"))
    new.verify("key", b"body", both.sign("key", b"body"))
    for seal, signed in ((old, both), (new, old)):
        with pytest.raises(AuthenticationError, match="missing or wrong"):
            seal.verify("key", b"body", signed.sign("key", b"body"))
    for key, body in (("other", b"body"), ("key", b"other")):
        with pytest.raises(AuthenticationError):
            both.verify(key, body, both.sign("key", b"body"))


@pytest.mark.parametrize(
    "keys", [[KEY, OTHER], (KEY, OTHER), iter([KEY, OTHER]), {KEY: 1, OTHER: 2}]
)
def test_several_keys(keys):
    seal = Seal(keys, 60)
    seal.check(sealed(keys=KEY))
    seal.check(sealed(keys=OTHER))


def test_one_key():
    Seal(bytearray(KEY), 60).check(sealed(keys=[KEY]))


def test_expiry(monkeypatch):
    metadata = sealed(lifetime=60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 58)
    Seal(KEY, 1).check(metadata)
    monkeypatch.setattr(time, "time", lambda: now + 62)
    refused(metadata, words="expired")


def test_expiry_cannot_be_moved():
    metadata = sealed(lifetime=0)
    nonce, mark, rest = metadata.notification_key.partition(".s1.")
    expiry, _, tag = rest.partition(".")
    later = f"{nonce}{mark}{int(expiry) + 3600}.{tag}"
    refused(altered(metadata, notification_key=later), words="seal is wrong")


@pytest.mark.parametrize(
    "keys", [[], (), b"", b"short", KEY[:15], [KEY, b"short"], [b""]], ids=repr
)
def test_bad_keys(keys):
    with pytest.raises(ValueError, match="keys") as caught:
        Seal(keys, 60)
    assert isinstance(caught.value, NixlConnectError)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    "keys", ["0123456789abcdef", [KEY.decode()], [5], [None], 5, int], ids=repr
)
def test_keys_of_other_types(keys):
    with pytest.raises(TypeError, match="keys") as caught:
        Seal(keys, 60)
    assert isinstance(caught.value, NixlConnectError)


def test_documented_layout():
    """What another implementation has to compute, and no more: the wire is public."""
    metadata = sealed()
    head, _, tag = metadata.notification_key.rpartition(".")
    mac = hmac.new(KEY, digestmod=hashlib.sha256)
    for part in (head.encode(), STREAM):
        mac.update(len(part).to_bytes(8, "little") + part)
    mac.update(b"1,2;cuda:1,4096,16;cuda:1,8192,32")
    assert base64.urlsafe_b64encode(mac.digest()).decode().rstrip("=") == tag

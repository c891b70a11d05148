"""Bad input is refused before anything is registered or sent, and leaves nothing behind."""

import asyncio
import base64
import copy
import pickle
import time
import zlib

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect._native import envelope
from nixl_connect.wire import codec
from nixl_connect.wire.codec import decode_nixl_metadata


@pytest.fixture
def told(make_connector):
    """Metadata of a readable operation of 100 bytes that exists, and of a writable one."""
    owner = make_connector()
    readable = owner.create_readable_blocking(nc.Descriptor(np.zeros(100, np.uint8)))
    writable = owner.create_writable_blocking(nc.Descriptor(np.zeros(100, np.uint8)))
    yield readable.metadata(), writable.metadata()
    assert readable.status is nc.OperationStatus.INITIALIZED
    assert writable.status is nc.OperationStatus.INITIALIZED


@pytest.fixture
def refused(connector):
    """Assert that both forms of a call raise an error, and that nothing happened."""
    connector._open()

    def check(name, arguments, error, text):
        with pytest.raises(error, match=text):
            getattr(connector, f"{name}_blocking")(*arguments)
        with pytest.raises(error, match=text):
            asyncio.run(getattr(connector, name)(*arguments))
        stats = connector.stats()
        assert stats["operations"]["started"] == 0
        assert stats["operations"]["held"] == 0
        assert stats["registrations"] == {"count": 0, "bytes": 0}
        assert not any(stats["peers"].values())

    return check


def array(size=100):
    return nc.Descriptor(np.zeros(size, np.uint8))


@pytest.mark.parametrize("name", ["create_readable", "create_writable"])
@pytest.mark.parametrize(
    ("descriptors", "error", "text"),
    [
        (None, nc.ArgumentTypeError, "local_descriptors must be a Descriptor"),
        (np.zeros(3), nc.ArgumentTypeError, "ndarray"),
        ("text", nc.ArgumentTypeError, "str"),
        ([], nc.ArgumentError, "must not be empty"),
        ([array(), None], nc.ArgumentTypeError, r"local_descriptors\[1\].*NoneType"),
        (
            [array(), nc.Descriptor((4096, 100, "cuda:0"))],
            nc.ArgumentError,
            r"local_descriptors\[1\] is on cuda:0",
        ),
    ],
    ids=["None", "array", "str", "empty", "None in list", "two devices"],
)
def test_descriptors(refused, name, descriptors, error, text):
    refused(name, (descriptors,), error, text)


def test_readonly_destinations(refused, told):
    readonly = np.zeros(100, np.uint8)
    readonly.flags.writeable = False
    for data in (bytes(100), readonly, memoryview(bytearray(100)).toreadonly()):
        descriptor = nc.Descriptor(data)
        refused("create_writable", (descriptor,), nc.ArgumentError, "read-only")
        refused("begin_read", (told[0], descriptor), nc.ArgumentError, "read-only")
        refused("begin_read", (told[0], [descriptor]), nc.ArgumentError, "read-only")


def test_wrong_pairing(refused, told):
    refused("begin_read", (told[1], array()), nc.PairingError, "writable")
    refused("begin_write", (array(), told[0]), nc.PairingError, "readable")
    unspecified = nc.RdmaMetadata.model_validate(told[0].model_dump() | {"operation_kind": 0})
    refused("begin_read", (unspecified, array()), nc.PairingError, "no operation")


def test_sizes_and_counts(refused, told):
    refused("begin_read", (told[0], array(99)), nc.ArgumentError, "99 bytes.*100")
    refused("begin_read", (told[0], [array(), array()]), nc.ArgumentError, "has 2.*has 1")
    refused("begin_read", (told[0], []), nc.ArgumentError, "empty")
    refused("begin_write", (array(101), told[1]), nc.ArgumentError, "101 bytes.*100")


def test_metadata_of_the_wrong_type(refused, told):
    for wrong in (None, told[0].model_dump(), told[0].model_dump_json(), b""):
        refused("begin_read", (wrong, array()), nc.ArgumentTypeError, "must be RdmaMetadata")
        refused("begin_write", (array(), wrong), nc.ArgumentTypeError, "must be RdmaMetadata")
    refused("begin_read", (array(), told[0]), nc.ArgumentTypeError, "must be RdmaMetadata")


def broken(metadata, **fields):
    return nc.RdmaMetadata.model_validate(metadata.model_dump() | fields)


def test_unparsable_metadata(refused, told):
    good = told[0]
    stream = base64.b64decode(good.nixl_metadata[4:])
    blob = zlib.decompress(stream)

    def text(data):
        return "b64:" + base64.b64encode(data).decode()

    for nixl_metadata in (
        "",
        "b64:",
        "b64:***",
        "not hexadecimal",
        "abc",
        text(stream[:-1]),
        text(stream[: len(stream) // 2]),
        text(stream[:-4] + b"\0\0\0\0"),
        text(stream + b"more"),
        text(b"\0" * 100),
        text(zlib.compress(blob[:-1])),
        text(zlib.compress(blob + b"more")),
        text(zlib.compress(b"")),
        text(zlib.compress(bytes(1 << 28))),
        stream.hex()[:-2],
    ):
        wrong = broken(good, nixl_metadata=nixl_metadata)
        refused("begin_read", (wrong, array()), nc.MetadataError, "nixl_metadata")
    for cut in range(len(blob)):
        with pytest.raises(nc.MetadataError):
            codec.parse_nixl_metadata(blob[:cut])
    wrong = broken(good, notification_key="")
    refused("begin_read", (wrong, array()), nc.MetadataError, "notification_key")
    wrong = broken(good, descriptors=[])
    refused("begin_read", (wrong, array()), nc.MetadataError, "has no descriptors")


def test_a_device_that_the_peer_cannot_mean(refused, told):
    item = told[0].descriptors[0].model_dump()
    wrong = broken(told[0], descriptors=[item, item | {"device": "cuda:1"}])
    refused("begin_read", (wrong, [array(), array()]), nc.MetadataError, "more than one kind")


def test_limits(make_connector, told):
    connector = make_connector(max_descriptors=2, max_metadata_bytes=200)
    connector.create_readable_blocking([nc.Descriptor(b"a"), nc.Descriptor(b"b")]).cancel()
    with pytest.raises(nc.ArgumentError, match="descriptors; max_descriptors is 2"):
        connector.create_readable_blocking([array()] * 3)
    with pytest.raises(nc.MetadataError, match="over max_metadata_bytes, 200"):
        connector.begin_read_blocking(told[0], array())


def test_metadata_that_was_not_parsed(refused, told):
    for given, hint in (
        (told[0].model_dump_json(), "model_validate_json"),
        (told[0].to_bytes(), "from_bytes"),
        (told[0].model_dump(), "model_validate"),
    ):
        text = f"not {type(given).__name__}; parse it with .*{hint}$"
        refused("begin_read", (given, array()), nc.ArgumentTypeError, text)
    refused("begin_read", (array(), array()), nc.ArgumentTypeError, "not Descriptor$")


def test_a_transport_that_nixl_has_not(make_connector):
    with pytest.raises(nc.BackendError, match=r"no transport of that name; it has .*UCX"):
        make_connector(backends=["NONE"])._open()


def test_what_belongs_to_a_process_is_not_copied(make_connector):
    owner, mover = make_connector(), make_connector()
    readable = owner.create_readable_blocking(array())
    with (
        mover.prepare_read_blocking(readable.metadata(), array()) as prepared,
        nc.HostPool(owner) as pool,
        pool.acquire_blocking(8) as lease,
    ):
        for item in (owner, readable, prepared, pool, lease):
            for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot be copied or pickled; "):
                    attempt(item)


def test_memory_that_the_peer_did_not_register(connector, told):
    item = told[0].descriptors[0]
    outside = {"device": "cpu", "ptr": item.ptr + 50, "size": item.size}
    with pytest.raises(nc.MetadataError, match="did not register"):
        connector.begin_read_blocking(broken(told[0], descriptors=[outside]), array())
    assert connector.stats()["peers"]["reloads"] == 0
    assert connector.stats()["registrations"]["count"] == 0
    assert connector.stats()["operations"]["held"] == 0


@pytest.mark.parametrize("opened", [False, True])
def test_a_closed_connector(make_connector, told, opened):
    connector = make_connector()
    if opened:
        connector._open()
    connector.close_blocking()
    for call in (
        lambda: connector.create_readable_blocking(array()),
        lambda: connector.create_writable_blocking(array()),
        lambda: connector.begin_read_blocking(told[0], array()),
        lambda: connector.begin_write_blocking(array(), told[1]),
        lambda: asyncio.run(connector.begin_read(told[0], array())),
        lambda: array().register_memory(connector),
    ):
        with pytest.raises(nc.ClosedError, match="closed"):
            call()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
def test_timeouts(connector, timeout):
    operation = connector.create_readable_blocking(array())
    with pytest.raises((nc.ArgumentError, nc.ArgumentTypeError), match="timeout"):
        operation.wait_for_completion_blocking(timeout)
    with pytest.raises((nc.ArgumentError, nc.ArgumentTypeError), match="timeout"):
        asyncio.run(operation.wait_for_completion(timeout))
    with pytest.raises((nc.ArgumentError, nc.ArgumentTypeError), match="timeout"):
        connector.create_readable_blocking(array(), timeout=timeout)


def test_connections_and_remotes(connector, told):
    with pytest.raises(nc.ArgumentTypeError):
        nc.Connection("connector", 1)
    with pytest.raises(nc.ArgumentTypeError):
        nc.Connection(connector, "1")
    with pytest.raises(nc.ArgumentError):
        nc.Connection(connector, 0)
    connection = connector._open()
    for wrong, error in (
        (7, nc.ArgumentTypeError),
        ("", nc.MetadataError),
        (b"", nc.MetadataError),
        (b"nixlSerDes|", nc.MetadataError),
    ):
        with pytest.raises(error):
            nc.Remote(connection, wrong)
    with nc.Remote(connection, told[0].nixl_metadata) as remote:
        assert remote.connection is connection
    blob = decode_nixl_metadata(told[0].nixl_metadata, 1 << 20)
    assert nc.Remote(connection, blob).name == remote.name


def test_keys(make_connector, told):
    """With keys, nothing reaches NIXL that is not sealed with one of them."""
    key, other = b"k" * 16, b"o" * 16
    owner = make_connector(keys=[key])
    operation = owner.create_readable_blocking(array())
    sealed = operation.metadata()
    stranger = make_connector(keys=other)
    friend = make_connector(keys=[other, key])
    with pytest.raises(nc.AuthenticationError) as caught:
        stranger.begin_read_blocking(sealed, array())
    assert isinstance(caught.value, PermissionError)
    with pytest.raises(nc.AuthenticationError):
        friend.begin_read_blocking(told[0], array())
    item = sealed.descriptors[0].model_dump()
    for altered in (
        {"descriptors": [item | {"ptr": item["ptr"] + 1}]},
        {"nixl_metadata": told[0].nixl_metadata},
        {"notification_key": "x" + sealed.notification_key},
    ):
        with pytest.raises(nc.AuthenticationError):
            friend.begin_read_blocking(broken(sealed, **altered), array())
    with pytest.raises(nc.AuthenticationError):
        nc.Remote(friend._open(), sealed.nixl_metadata)
    assert friend.stats()["peers"]["count"] == 0
    # Sealed metadata is read by those who have the key, and by those who know nothing of seals.
    friend.begin_read_blocking(sealed, array()).wait_for_completion_blocking(10)
    operation.wait_for_completion_blocking(10)
    again = owner.create_readable_blocking(array())
    make_connector().begin_read_blocking(
        again.metadata(hex_encode=True), array()
    ).wait_for_completion_blocking(10)
    again.wait_for_completion_blocking(10)
    expired = make_connector(keys=key, seal_lifetime=0)
    late = expired.create_readable_blocking(array()).metadata()
    while time.time() <= int(late.notification_key.split(".")[2]):
        time.sleep(0.01)  # the expiry is in whole seconds
    with pytest.raises(nc.AuthenticationError, match=r"expired \d+\.\d s ago"):
        friend.begin_read_blocking(late, array())


def test_what_inflates_is_not_remembered(connector, told):
    """Metadata of a few characters that are megabytes would fill a process, message by message."""

    def field(tag, payload):
        return tag + len(payload).to_bytes(8, "little") + payload + b"|"

    ordinary = connector._open()._engine.starter.ordinary
    before = ordinary.remembered
    for i in range(3):
        blob = b"nixlSerDes|" + b"".join(
            (
                field(b"Agent", b"inflated-%d" % i),
                field(b"Conns", (1).to_bytes(8, "little")),
                field(b"t", b"UCX"),
                field(b"c", bytes(2_900_000)),
                field(b"", b"MemSection"),
                field(b"nixlSecElms", (0).to_bytes(8, "little")),
            )
        )
        (item,) = told[0].descriptors
        named = envelope.Section("UCX", 0, [(item.ptr, item.size, 0, b"key")])
        blob = envelope.write(blob[: envelope.parse(blob).sections_at], [named])
        text = "b64:" + base64.b64encode(zlib.compress(blob, 9)).decode()
        assert len(text) < 4096
        fields = told[0].model_dump() | {"nixl_metadata": text}
        metadata = nc.RdmaMetadata.model_validate(fields)
        for _ in range(3):  # it is well-formed
            nc.ReadOperation(connector._open(), metadata, array(), _begin=False)
    assert ordinary.remembered == before


def test_what_comes_again_is_remembered_and_what_came_once_is_not(connector, make_connector):
    """What is never seen again would only be work for the garbage collector."""
    mover = make_connector()
    ordinary = mover._open()._engine.starter.ordinary

    def move(memory):
        readable = connector.create_readable_blocking(memory)
        metadata = nc.RdmaMetadata.model_validate_json(readable.metadata().model_dump_json())
        mover.begin_read_blocking(metadata, array()).wait_for_completion_blocking()
        readable.wait_for_completion_blocking()

    move(array())  # connects
    before = ordinary.remembered
    kept = [array() for _ in range(100)]
    for memory in kept:
        move(memory)
    assert ordinary.remembered == before
    for _ in range(5):
        move(kept[0])
    assert ordinary.remembered == before + 1


def test_a_long_notification_key(told, refused):
    fields = told[0].model_dump() | {"notification_key": "k" * 4097}
    metadata = nc.RdmaMetadata.model_validate(fields)
    refused("begin_read", (metadata, array()), nc.MetadataError, "1 to 4096 bytes")


def test_an_operation_is_made_once(connector):
    first = bytearray(8)
    with connector.create_readable_blocking(nc.Descriptor(first)) as operation:
        told = operation.metadata()
        with pytest.raises(RuntimeError, match="has been made"):
            type(operation).__init__(operation, operation.connection, nc.Descriptor(bytearray(9)))
        assert operation.metadata() == told
        assert operation.status is nc.OperationStatus.INITIALIZED

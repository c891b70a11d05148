"""The public interface as callers use it: names of arguments, attributes, constructors by hand."""

import asyncio
import base64
import contextlib
import inspect
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import until

import nixl_connect as nc


def parameters(callable_):
    return [name for name in inspect.signature(callable_).parameters if name[0] != "_"]


def test_names_of_arguments():
    for create in (nc.Connector.create_readable, nc.Connector.create_writable):
        assert parameters(create) == ["self", "local_descriptors", "timeout", "transfers"]
    assert parameters(nc.Connector.begin_read) == [
        "self", "remote_metadata", "local_descriptors", "timeout", "parts",
    ]  # fmt: skip
    assert parameters(nc.Connector.begin_write) == [
        "self", "local_descriptors", "remote_metadata", "timeout", "parts",
    ]  # fmt: skip
    for name in ("create_readable", "create_writable", "begin_read", "begin_write", "close"):
        coroutine = getattr(nc.Connector, name)
        twin = getattr(nc.Connector, f"{name}_blocking")
        assert inspect.iscoroutinefunction(coroutine)
        assert parameters(twin) == parameters(coroutine)
    assert parameters(nc.Connector)[0] == "worker_id"
    assert parameters(nc.Connection) == ["connector", "number"]
    assert parameters(nc.Remote) == ["connection", "nixl_metadata"]
    assert parameters(nc.Descriptor) == ["data", "stream"]
    assert parameters(nc.Device) == ["metadata"]
    assert parameters(nc.ReadOperation)[:3] == [
        "connection", "remote_metadata", "local_descriptors",
    ]  # fmt: skip
    assert parameters(nc.WriteOperation)[:3] == [
        "connection", "local_descriptors", "remote_metadata",
    ]  # fmt: skip
    assert parameters(nc.ReadableOperation)[:2] == ["connection", "local_descriptors"]
    assert parameters(nc.WritableOperation)[:2] == ["connection", "local_descriptors"]
    assert parameters(nc.PassiveOperation.metadata) == ["self", "hex_encode"]


def test_kinds_of_operations():
    for passive in (nc.ReadableOperation, nc.WritableOperation):
        assert issubclass(passive, nc.PassiveOperation)
    for active in (nc.ReadOperation, nc.WriteOperation):
        assert issubclass(active, nc.ActiveOperation)
    for kind in (nc.PassiveOperation, nc.ActiveOperation):
        assert issubclass(kind, nc.AbstractOperation)


def test_a_connector():
    one, two, other = nc.Connector("worker"), nc.Connector("worker"), nc.Connector()
    assert one.name == str(one) == "worker"
    assert one == two != other
    assert len({one, two, other}) == 2
    assert one.hostname
    assert isinstance(one.is_cuda_available, bool)
    assert asyncio.run(one.initialize()) is None
    assert one._connection is None
    assert one.stats() == {}
    with one:
        pass
    with pytest.raises(nc.ClosedError):
        one.create_readable_blocking(nc.Descriptor(b"abc"))


def test_opening(make_connector):
    one, two, three = (make_connector() for _ in range(3))
    assert asyncio.run(one.open()) is one
    assert two.open_blocking() is two
    assert asyncio.run(three.warmup()) is None
    for connector in (one, two, three):
        opened = connector._connection
        assert connector.stats()["operations"]["started"] == 0
        assert connector.open_blocking()._connection is opened
        assert asyncio.run(connector.open())._connection is opened
        connector.close_blocking()
        for again in (connector.open_blocking, lambda it=connector: asyncio.run(it.open())):
            with pytest.raises(nc.ClosedError):
                again()


def test_many_open_at_once(make_connector):
    connector = make_connector()

    async def main():
        await asyncio.gather(*(connector.open() for _ in range(20)), connector.warmup())

    asyncio.run(main())
    with ThreadPoolExecutor(8) as threads:
        found = {
            one._connection for one in threads.map(lambda _: connector.open_blocking(), "x" * 20)
        }
    assert len(found) == 1


def test_decoded_metadata(connector):
    with connector.create_readable_blocking(nc.Descriptor(b"abc")) as offered:
        for hex_encode in (False, True):
            plain = nc.Remote.decode_metadata(offered.metadata(hex_encode).nixl_metadata)
            assert connector.name.encode() in plain
            assert nc.Remote.decode_metadata(plain) is plain
    most, over = (
        "b64:" + base64.b64encode(zlib.compress(bytes(size))).decode()
        for size in (4 << 20, (4 << 20) + 1)
    )
    assert nc.Remote.decode_metadata(most) == bytes(4 << 20)
    with pytest.raises(nc.MetadataError, match="4194304"):
        nc.Remote.decode_metadata(over)
    for wrong in ("", b"", "b64:xx", "zz", "b64:" + "A" * 20_000_000):
        with pytest.raises(nc.MetadataError):
            nc.Remote.decode_metadata(wrong)
    with pytest.raises(nc.ArgumentTypeError):
        nc.Remote.decode_metadata(None)


def test_a_connection(connector):
    connection = asyncio.run(connector._create_connection())
    assert connection is asyncio.run(connector._create_connection())
    assert connection.connector is connector
    assert connection.name == str(connection) == f"{connector.name}-1"
    assert isinstance(connection.metadata, bytes)
    assert asyncio.run(connection.initialize()) is None


def test_all_four_operations_with_asyncio(make_connector):
    owner, mover = make_connector(), make_connector()

    async def main():
        source, target = np.arange(100), np.zeros(100, np.int64)
        async with await owner.create_readable(local_descriptors=nc.Descriptor(source)) as readable:
            async with await mover.begin_read(
                remote_metadata=readable.metadata(), local_descriptors=nc.Descriptor(target)
            ) as read:
                await read.wait_for_completion(10)
            await readable.wait_for_completion(10)
        assert (source == target).all()
        assert read.operation_kind is readable.operation_kind is nc.OperationKind.READ
        target[:] = 0
        async with await owner.create_writable(local_descriptors=nc.Descriptor(target)) as writable:
            async with await mover.begin_write(
                local_descriptors=nc.Descriptor(source), remote_metadata=writable.metadata()
            ) as write:
                await write.wait_for_completion(10)
            await writable.wait_for_completion(10)
        assert (source == target).all()
        assert write.operation_kind is writable.operation_kind is nc.OperationKind.WRITE
        for active in (read, write):
            assert active.remote.name == readable.connection.name
            assert active.remote.connection is active.connection

    asyncio.run(main())


def test_operations_made_by_hand(make_connector):
    owner, mover = make_connector()._open(), make_connector()._open()
    source, target = np.arange(100), np.zeros(100, np.int64)
    readable = nc.ReadableOperation(owner, nc.Descriptor(source))
    read = nc.ReadOperation(mover, readable.metadata(), nc.Descriptor(target))
    read.wait_for_completion_blocking(10)
    readable.wait_for_completion_blocking(10)
    assert (source == target).all()
    target[:] = 0
    writable = nc.WritableOperation(owner, [nc.Descriptor(target)])
    write = nc.WriteOperation(mover, [nc.Descriptor(source)], writable.metadata())
    write.wait_for_completion_blocking(10)
    writable.wait_for_completion_blocking(10)
    assert (source == target).all()


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_peer_moves_the_data(connector, peer, content, digest, kind):
    """The other direction: the memory is here, the peer is the active side."""
    sizes = [5, 100_000]
    arrays = [content(7 + i, size) for i, size in enumerate(sizes)]
    expected = [digest(array) for array in arrays]
    if kind == "read":
        passive = connector.create_readable_blocking([nc.Descriptor(array) for array in arrays])
    else:
        for array in arrays:
            array[:] = 0
        passive = connector.create_writable_blocking([nc.Descriptor(array) for array in arrays])
    told = passive.metadata().model_dump()
    made = peer.do("active", kind=kind, metadata=told, sizes=sizes, seed=7)
    peer.do("wait", number=made["id"])
    passive.wait_for_completion_blocking(10)
    if kind == "read":
        assert peer.do("digests", number=made["id"])["digests"] == expected
    else:
        assert [digest(array) for array in arrays] == expected


def test_a_bytearray_keeps_its_size_until_no_peer_can_touch_it(make_connector, peer):
    connector = make_connector(quarantine=60)
    data = bytearray(100)
    operation = connector.create_writable_blocking(nc.Descriptor(data))
    told = operation.metadata().model_dump()
    operation.cancel()
    del operation
    with pytest.raises(BufferError):
        data.append(0)
    made = peer.do("active", kind="write", metadata=told, sizes=[100], seed=3)
    peer.do("wait", number=made["id"])
    connector.create_readable_blocking(nc.Descriptor(b"x")).cancel()

    def resizable():
        with contextlib.suppress(BufferError):
            data.append(0)
        return len(data) == 101

    until(resizable)


def test_errors_say_status_and_peer(connector, start_peer):
    peer = start_peer("somebody")
    made = peer.do("passive", kind="writable", sizes=[8])
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    connector.begin_write_blocking(nc.Descriptor(bytes(8)), told).wait_for_completion_blocking(10)
    late = nc.RdmaMetadata.model_validate(told.model_dump() | {"notification_key": "late"})
    # As if it were on another host, where NIXL finds out, and not its doorbell.
    (known,) = connector._open()._engine.peers.known()
    known.near = False
    known.last_used += 3600  # it is not quiet, and so not looked at
    peer.stop()
    peer.kill()
    operation = connector.begin_write_blocking(nc.Descriptor(bytes(8)), late)
    with pytest.raises(nc.PeerLostError, match=r"'somebody-1'.*ERR_BACKEND"):
        operation.wait_for_completion_blocking(10)


def test_without_nixls_progress_thread(make_connector, peer):
    connector = make_connector(progress_interval=0)
    made = peer.do("passive", kind="readable", sizes=[1000])
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    connector.begin_read_blocking(
        told, nc.Descriptor(bytearray(1000))
    ).wait_for_completion_blocking(10)
    peer.do("wait", number=made["id"])
    operation = connector.create_readable_blocking(nc.Descriptor(bytes(10)))
    made = peer.do("active", kind="read", metadata=operation.metadata().model_dump(), sizes=[10])
    operation.wait_for_completion_blocking(10)
    peer.do("wait", number=made["id"])

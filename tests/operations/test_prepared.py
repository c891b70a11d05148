"""Prepared transfers: one request, posted again and again, between real processes."""

import asyncio
import fractions
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from calls import led
from processes import until

import nixl_connect as nc
from nixl_connect._native.agent import LongCall


def prepare(connector, made, arrays, kind="read", **options):
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    descriptors = [nc.Descriptor(array) for array in arrays]
    if kind == "read":
        return connector.prepare_read_blocking(told, descriptors, **options)
    return connector.prepare_write_blocking(descriptors, told, **options)


@pytest.mark.parametrize("sizes", [[1], [8], [4096, 1, 100_000], [2 << 20]])
def test_reads_what_is_there_now(connector, peer, content, sizes):
    made = peer.do("passive", kind="readable", sizes=sizes)
    arrays = [np.zeros(size, np.uint8) for size in sizes]
    with prepare(connector, made, arrays) as read:
        for seed in range(5):
            peer.do("refill", number=made["id"], seed=seed)
            read.transfer_blocking(10)
            for i, array in enumerate(arrays):
                assert (array == content(seed + i, array.size)).all()
        assert peer.do("status", number=made["id"])["status"] == "INIT"
        assert [item.size for item in read.results()] == sizes
    assert read.closed
    peer.do("wait", number=made["id"])
    assert connector.stats()["registrations"]["count"] == 0


@pytest.mark.parametrize("size", [8, 2 << 20])
def test_writes_what_is_here_now(connector, peer, content, digest, size):
    made = peer.do("passive", kind="writable", sizes=[size])
    array = np.zeros(size, np.uint8)
    with prepare(connector, made, [array], "write") as write:
        for seed in range(5):
            array[:] = content(seed, size)
            write.transfer_blocking(10)
            assert peer.do("digests", number=made["id"])["digests"] == [digest(array)]
    peer.do("wait", number=made["id"])


@pytest.mark.parametrize("size", [8, 2 << 20])
def test_on_a_loop(connector, peer, content, size):
    made = peer.do("passive", kind="readable", sizes=[size])
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    array = np.zeros(size, np.uint8)

    async def main():
        async with await connector.prepare_read(told, nc.Descriptor(array)) as read:
            for seed in range(20):
                peer.do("refill", number=made["id"], seed=seed)
                await asyncio.wait_for(read.transfer(), 10)
                assert (array == content(seed, size)).all()

    asyncio.run(main())
    peer.do("wait", number=made["id"])


def test_other_operations_meanwhile(connector, peer, content):
    made = peer.do("passive", kind="readable", sizes=[64])
    array = np.zeros(64, np.uint8)
    with prepare(connector, made, [array]) as read:
        for seed in range(10):
            other = peer.do("passive", kind="readable", sizes=[1000], seed=seed)
            told = nc.RdmaMetadata.model_validate(other["metadata"])
            target = np.zeros(1000, np.uint8)
            operation = connector.begin_read_blocking(told, nc.Descriptor(target))
            read.transfer_blocking(10)
            operation.wait_for_completion_blocking(10)
            assert (target == content(seed, 1000)).all()
            assert (array == content(0, 64)).all()


def test_leaving_with_an_error_cancels(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    read = prepare(connector, made, [np.zeros(8, np.uint8)])
    with pytest.raises(KeyError), read:
        raise KeyError
    with pytest.raises(Exception, match="cancelled by the peer"):
        peer.do("wait", number=made["id"])
    with pytest.raises(nc.StateError, match="closed"):
        read.transfer_blocking()
    with pytest.raises(nc.StateError, match="closed"):
        read.__enter__()
    read.close()
    read.cancel()


def test_dropping_cancels_and_lets_go(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    buffer = bytearray(8)
    read = prepare(connector, made, [buffer])
    read.transfer_blocking(10)
    with pytest.raises(BufferError):
        buffer.append(1)
    del read
    gc.collect()
    with pytest.raises(Exception, match="cancelled by the peer"):
        peer.do("wait", number=made["id"])
    until(lambda: connector.stats()["registrations"]["count"] == 0)
    buffer.append(1)


def test_one_at_a_time(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[64 << 20])
    read = prepare(connector, made, [np.zeros(64 << 20, np.uint8)])
    refused = []

    def work():
        try:
            read.transfer_blocking(20)
        except nc.StateError:
            refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 0 < len(refused) < 4
    read.close()


def until_it_fails(read):
    """Transfer until UCX has noticed."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        read._peer.last_used += 3600  # it is not quiet, and so not looked at
        read.transfer_blocking(5)


@pytest.mark.parametrize("how", ["kill", "close"])
def test_a_peer_that_is_gone(connector, peer, how):
    made = peer.do("passive", kind="readable", sizes=[8])
    read = prepare(connector, made, [np.zeros(8, np.uint8)])
    read.transfer_blocking(10)
    if how == "kill":
        peer.kill()
    else:
        peer.do("close")
    with pytest.raises(nc.TransferError):
        until_it_fails(read)
    assert read.closed
    with pytest.raises(nc.StateError):
        read.transfer_blocking()


@pytest.mark.parametrize("how", ["late", "interrupted", "closing"])
def test_a_peer_that_is_stopped(tmp_path, how):
    """Over TCP the peer serves the read: stopped, it does not."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "stopped.py"), how],
        env=os.environ | {"UCX_TLS": "tcp", "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    # UCX may have its say when the process ends with transfers that never did.
    assert done.stdout.startswith("late\npeer told\n"), done.stdout + done.stderr


def test_closing_tells_a_peer_that_was_disconnected(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    read = prepare(connector, made, [np.zeros(8, np.uint8)])
    read.transfer_blocking(10)
    peers = connector._open()._engine.peers
    peers.by_name[read.remote.name].last_used = -1e9
    peers._evict_idle()
    assert connector.stats()["peers"]["evictions"] == 1
    read.close()
    peer.do("wait", number=made["id"])


def test_no_thread_to_be_had(connector, peer, content, monkeypatch):
    made = peer.do("passive", kind="readable", sizes=[1 << 20])
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    array = np.zeros(1 << 20, np.uint8)
    read = connector.prepare_read_blocking(told, nc.Descriptor(array))

    def refuse(self):
        raise RuntimeError("can't start new thread")

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="start new thread"):
                await read.transfer(10)
        await read.transfer(10)

    asyncio.run(main())
    assert (array == content(0, 1 << 20)).all()
    read.close()


def test_a_finalizer_makes_no_call_to_nixl(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    read = prepare(connector, made, [np.zeros(8, np.uint8)])
    threads = []

    def noted(original, *arguments):
        threads.append(threading.current_thread())
        return original(*arguments)

    with led("deregister_mem", noted):
        del read
        until(lambda: threads)
    assert threads[0] is not threading.main_thread()


def test_nothing_begins_on_a_loop_while_nixl_may_take_long(connector, peer, monkeypatch):
    """NIXL lets in one at a time: a prepared transfer, and loading new regions, go to a thread."""
    small = peer.do("passive", kind="readable", sizes=[8])
    new = peer.do("passive", kind="readable", sizes=[64], seed=3)
    told = [nc.RdmaMetadata.model_validate(item["metadata"]) for item in (small, new)]
    engine = connector._open()._engine
    threads, called = set(), set()

    def noted(name, call):
        def note(*arguments, **options):
            threads.add(threading.current_thread())
            called.add(name)
            return call(*arguments, **options)

        return note

    async def main():
        async with await connector.prepare_read(told[0], nc.Descriptor(bytearray(8))) as read:
            monkeypatch.setattr(read, "_post", noted("post", read._post))
            monkeypatch.setattr(engine.peers, "admit", noted("admit", engine.peers.admit))
            with LongCall(engine._agent):
                await read.transfer(10)
                other = await connector.begin_read(told[1], nc.Descriptor(bytearray(64)))
                await other.wait_for_completion(10)

    asyncio.run(main())
    assert called == {"post", "admit"}
    assert threading.main_thread() not in threads


def test_a_reconnected_peer(connector, peer, content):
    """The request goes with the connection, and is made anew."""
    made = peer.do("passive", kind="readable", sizes=[64])
    array = np.zeros(64, np.uint8)
    with prepare(connector, made, [array]) as read:
        read.transfer_blocking(10)
        peers = connector._open()._engine.peers
        peers.mark_broken(peers.by_name[read.remote.name])
        peer.do("refill", number=made["id"], seed=5)
        read.transfer_blocking(10)
        assert (array == content(5, 64)).all()
        peers.mark_broken(peers.by_name[read.remote.name])

        async def main():
            await read.transfer(10)

        asyncio.run(main())
    assert connector.stats()["peers"]["reloads"] == 2
    peer.do("wait", number=made["id"])


def test_closing_the_connector(make_connector, peer):
    connector = make_connector()
    made = peer.do("passive", kind="readable", sizes=[8])
    read = prepare(connector, made, [np.zeros(8, np.uint8)])
    read.transfer_blocking(10)
    connector.close_blocking()
    assert read.closed
    with pytest.raises(nc.StateError):
        read.transfer_blocking()
    with pytest.raises(Exception, match="cancelled by the peer"):
        peer.do("wait", number=made["id"])


def test_closing_while_a_transfer_goes_on(make_connector, peer):
    connector = make_connector()
    made = peer.do("passive", kind="readable", sizes=[64 << 20])
    read = prepare(connector, made, [np.zeros(64 << 20, np.uint8)])
    errors = []

    def work():
        try:
            while True:
                read.transfer_blocking(20)
        except (nc.StateError, nc.ClosedError, nc.OperationCancelledError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    connector.close_blocking()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(errors) == 2


def test_metadata_serves_one_prepared_transfer(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    read = prepare(connector, made, [np.zeros(8, np.uint8)])
    with pytest.raises(nc.StateError, match="has been used"):
        prepare(connector, made, [np.zeros(8, np.uint8)])
    read.close()


def test_wrong_pairing(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    with pytest.raises(nc.PairingError):
        prepare(connector, made, [np.zeros(8, np.uint8)], "write")


def test_text(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    with prepare(connector, made, [np.zeros(8, np.uint8)]) as read:
        assert repr(read).startswith("PreparedRead(1 regions, 8 bytes, peer=")
        assert read.operation_kind is nc.OperationKind.READ
        assert read.connection is connector._open()
    assert "closed" in repr(read)


def test_in_a_forked_child(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[8])
    with prepare(connector, made, [np.zeros(8, np.uint8)]) as read:
        read.transfer_blocking(10)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for refused in (read.transfer_blocking, read.close, read.cancel, read.__enter__):
                    with pytest.raises(nc.ClosedError):
                        refused()
                read.__exit__(None, None, None)
                del read
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        read.transfer_blocking(10)
    peer.do("wait", number=made["id"])


def test_one_that_ends_while_its_timeout_is_read(make_connector):
    """As when another thread, or a signal handler, closes it just then."""

    class Ending(fractions.Fraction):
        def __float__(self):
            end()
            return 20.0

    owner, mover = make_connector(), make_connector()
    target = nc.Descriptor(bytearray(8))
    for name in ("cancel", "close"):
        with owner.create_readable_blocking(nc.Descriptor(b"8 bytes.")) as offered:
            prepared = mover.prepare_read_blocking(offered.metadata(), target)
            prepared.transfer_blocking()
            end = getattr(prepared, name)
            with pytest.raises(nc.StateError, match="closed"):
                prepared.transfer_blocking(Ending(20))
    # Nothing is left of them, and the peer is as good as it was.
    with owner.create_readable_blocking(nc.Descriptor(b"8 bytes.")) as offered:
        with mover.prepare_read_blocking(offered.metadata(), target) as prepared:
            prepared.transfer_blocking()
        offered.wait_for_completion_blocking(20)
    assert mover.stats()["peers"]["reloads"] == 0
    assert [known.in_flight for known in mover._open()._engine.peers.known()] == [0]

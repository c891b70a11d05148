"""Children of a process that has a connector: what they are refused; peers that they outlive."""

import os
import signal

import numpy as np
import pytest
from children import TRANSPORTS, run
from processes import HERE, told

import nixl_connect as nc


@TRANSPORTS
@pytest.mark.parametrize("how", ["python", "c", "program"])
@pytest.mark.parametrize("connected", [True, False])
def test_a_peer_that_is_gone_and_its_child_is_not(
    start_forking, make_connector, monkeypatch, tls, how, connected
):
    """It is lost at once, and not when the child ends."""
    monkeypatch.setenv("UCX_TLS", tls)
    peer, connector = start_forking(), make_connector()
    first = peer.do("passive", kind="readable", sizes=[100], seed=1)
    if connected:
        into = nc.Descriptor(np.zeros(100, np.uint8))
        with connector.begin_read_blocking(told(first), into) as read:
            read.wait_for_completion_blocking(20)
        peer.do("wait", number=first["id"])
    made = [peer.do("passive", kind="readable", sizes=[size], seed=1) for size in (100, 100_000)]
    child = peer.do("fork", how=how)["pid"]
    try:
        peer.kill()
        for offered, size in zip(made, (100, 100_000), strict=True):
            into = nc.Descriptor(np.zeros(size, np.uint8))
            with pytest.raises(nc.PeerLostError):
                connector.begin_read_blocking(
                    told(offered), into, timeout=60
                ).wait_for_completion_blocking(20)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_is_refused_whatever_the_parent_opened():
    """Each with ClosedError; letting go of it is harmless and silent."""
    run(
        """
        one, two = nc.Connector(), nc.Connector()
        move(one, two)
        buffer = np.ones(64, np.uint8)
        registered, fresh = nc.Descriptor(buffer), nc.Descriptor(np.ones(64, np.uint8))
        registered.register_memory(one)
        connection = one._open()
        offers = [one.create_readable_blocking(registered) for _ in range(3)]
        metadata = [offer.metadata() for offer in offers]
        space = one.create_writable_blocking(nc.Descriptor(np.zeros(64, np.uint8)))
        room = space.metadata()
        prepared = two.prepare_read_blocking(metadata[0], nc.Descriptor(np.zeros(64, np.uint8)))
        prepared.transfer_blocking(20)
        ended = two.begin_read_blocking(metadata[1], nc.Descriptor(np.zeros(64, np.uint8)))
        ended.wait_for_completion_blocking(20)
        into = nc.Descriptor(np.zeros(64, np.uint8))
        run = asyncio.run
        refused = {
            "create_readable": lambda: run(one.create_readable(fresh)),
            "create_readable_blocking": lambda: one.create_readable_blocking(fresh),
            "create_writable": lambda: run(one.create_writable(fresh)),
            "create_writable_blocking": lambda: one.create_writable_blocking(fresh),
            "begin_read": lambda: run(two.begin_read(metadata[2], into)),
            "begin_read_blocking": lambda: two.begin_read_blocking(metadata[2], into),
            "begin_write": lambda: run(two.begin_write(fresh, room)),
            "begin_write_blocking": lambda: two.begin_write_blocking(fresh, room),
            "prepare_read": lambda: run(two.prepare_read(metadata[2], into)),
            "prepare_read_blocking": lambda: two.prepare_read_blocking(metadata[2], into),
            "prepare_write": lambda: run(two.prepare_write(fresh, room)),
            "prepare_write_blocking": lambda: two.prepare_write_blocking(fresh, room),
            "itself": lambda: one.begin_read_blocking(metadata[2], into),
            "stats": one.stats,
            "operations": one.operations,
            "peers": one.peers,
            "connection.metadata": lambda: connection.metadata,
            "Remote": lambda: nc.Remote(connection, room.nixl_metadata),
            "metadata": offers[0].metadata,
            "metadata, in hexadecimal": lambda: offers[0].metadata(hex_encode=True),
            "cancel": offers[0].cancel,
            "cancel what has ended": ended.cancel,
            "wait": lambda: run(offers[0].wait_for_completion(1)),
            "wait_blocking": lambda: offers[0].wait_for_completion_blocking(1),
            "register_memory": lambda: fresh.register_memory(one),
            "register_memory again": lambda: registered.register_memory(one),
            "register_memory elsewhere": lambda: registered.register_memory(two),
            "register_with_connector": lambda: fresh.register_with_connector(connection),
            "deregister": lambda: registered.deregister_with_connector(connection),
            "deregister what is not": lambda: fresh.deregister_with_connector(connection),
            "transfer": lambda: run(prepared.transfer(5)),
            "transfer_blocking": lambda: prepared.transfer_blocking(5),
            "prepared close": prepared.close,
            "prepared cancel": prepared.cancel,
            "prepared with": prepared.__enter__,
        }

        def check():
            global offers, space, prepared, ended, registered, fresh, connection, one, two
            for what, attempt in refused.items():
                try:
                    attempt()
                except nc.ClosedError as error:
                    assert "forked" in str(error), (what, error)
                else:
                    raise AssertionError(f"{what} is not refused")
            assert not registered.is_registered
            assert str(offers[0].status) == "INIT" and str(ended.status) == "DONE"
            repr(offers[0]), repr(prepared), prepared.closed, ended.results(), one.name
            # Letting go is silent.
            import io
            sys.stderr = said = io.StringIO()
            for operation in (*offers, space, ended):
                operation.__exit__(None, None, None)
            prepared.__exit__(None, None, None)
            prepared.__exit__(ValueError, None, None)

            async def leave():
                await prepared.__aexit__(None, None, None)
                await offers[0].__aexit__(None, None, None)
                await one.close()

            run(leave())
            one.close_blocking(), two.close_blocking()
            refused.clear()
            operation = offers = space = prepared = ended = registered = fresh = connection = None
            one = two = None
            gc.collect()
            assert not said.getvalue(), said.getvalue()
            try:
                nc.Connector().create_readable_blocking(nc.Descriptor(b"abc"))
            except nc.BackendError as error:
                assert "spawn" in str(error)

        in_child(check)
        assert registered.is_registered
        prepared.transfer_blocking(20)
        prepared.close()
        offers[0].wait_for_completion_blocking(20)
        move(one, two)
        """
    )


@pytest.mark.parametrize("busy", ["held_up(connector)", "of.peers._lock", "of._close_lock"])
def test_refused_also_where_a_thread_held_a_lock(busy):
    """Which it cannot give back in the child."""
    run(
        f"""
        import sys
        sys.path.insert(0, {str(HERE)!r})
        from calls import held_up
        one, two = nc.Connector(), nc.Connector()
        move(one, two)
        descriptor = nc.Descriptor(np.ones(64, np.uint8))
        descriptor.register_memory(one)
        offer = one.create_readable_blocking(descriptor)
        into = nc.Descriptor(np.zeros(64, np.uint8))
        prepared = two.prepare_read_blocking(offer.metadata(), into)
        time.sleep(0.1)  # what has been quiet is looked at before it is used again
        held, done = threading.Event(), threading.Event()

        def hold():
            with contextlib.ExitStack() as stack:
                for connector in (one, two):
                    of = connector._open()._engine
                    stack.enter_context({busy})
                held.set()
                done.wait(50)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()

        def check():
            signal.alarm(30)  # what hangs
            for attempt in (
                lambda: one.create_readable_blocking(nc.Descriptor(b"abc")),
                lambda: descriptor.deregister_with_connector(one._open()),
                lambda: nc.Descriptor(b"abc").register_memory(one),
                lambda: two.begin_read_blocking(
                    offer._told, nc.Descriptor(np.zeros(64, np.uint8))
                ),
                lambda: prepared.transfer_blocking(5),
                lambda: prepared.close(),
                lambda: one.stats(),
                lambda: one._open().metadata,
                lambda: offer.cancel(),
            ):
                try:
                    attempt()
                except nc.ClosedError:
                    continue
                raise AssertionError("not refused")
            one.close_blocking(), two.close_blocking()

        in_child(check)
        done.set()
        thread.join()
        """
    )

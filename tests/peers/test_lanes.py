"""Long copies between processes of one host: shared among lanes, beside all else."""

import asyncio
import contextlib

import numpy as np
import pytest
from calls import handle_of, led
from hypothesis import given
from hypothesis import strategies as st
from processes import told, until

import nixl_connect as nc
from nixl_connect._native.agent import AgentClosedError
from nixl_connect._native.packing import Regions
from nixl_connect.backend.agents import start_agents
from nixl_connect.memory.tables import BlockDescriptors, Group
from nixl_connect.peers import lanes

LARGE = lanes.LEAST_BYTES


@pytest.fixture(params=[1, 2], autouse=True)
def count(request, monkeypatch):
    """However many processors there are, one lane and two."""
    monkeypatch.setattr(lanes, "COUNT", request.param)
    return request.param


def engine_of(connector):
    return connector._open()._engine


def counts(connector):
    """Return what the lanes hold: registrations, and transfers in flight."""
    opened = engine_of(connector)._lanes.all
    return (
        sum(len(lane.registry) for lane in opened),
        sum(peer.in_flight for lane in opened for peer in lane.peers.by_name.values()),
    )


@pytest.mark.parametrize(
    "sizes",
    [
        [LARGE],
        [LARGE - 1, 1],
        [LARGE + 4097],
        [1, 4095, 3 * LARGE + 17, 4097],
        [100_003] * 60,
    ],
    ids=str,
)
def test_read(connector, peer, content, count, sizes):
    made = peer.do("passive", kind="readable", sizes=sizes)
    arrays = [np.zeros(size, np.uint8) for size in sizes]
    read = connector.begin_read_blocking(told(made), [nc.Descriptor(a) for a in arrays])
    read.wait_for_completion_blocking(20)
    for i, array in enumerate(arrays):
        assert (array == content(i, array.size)).all()
    peer.do("wait", number=made["id"])
    assert len(engine_of(connector)._lanes.all) == count
    assert counts(connector) == (0, 0)


def test_write(connector, peer, content, digest):
    sizes = [LARGE + 3, 5, 2 * LARGE]
    made = peer.do("passive", kind="writable", sizes=sizes)
    arrays = [content(i, size) for i, size in enumerate(sizes)]
    write = connector.begin_write_blocking([nc.Descriptor(a) for a in arrays], told(made))
    write.wait_for_completion_blocking(20)
    peer.do("wait", number=made["id"])
    assert peer.do("digests", number=made["id"])["digests"] == [digest(a) for a in arrays]


def test_prepared_ones_go_without(connector, peer, content):
    """They last, and would keep a lane's peer from being connected anew."""
    size = LARGE + 12_345
    made = peer.do("passive", kind="readable", sizes=[size], timeout=60)
    array = np.zeros(size, np.uint8)
    with connector.prepare_read_blocking(told(made), nc.Descriptor(array)) as read:
        for seed in range(5):
            peer.do("refill", number=made["id"], seed=seed)
            read.transfer_blocking(20)
            assert (array == content(seed, size)).all()
    peer.do("wait", number=made["id"])
    assert not engine_of(connector)._lanes.all


def test_many_at_once(connector, peer, content):
    size = LARGE + 1
    made = [peer.do("passive", kind="readable", sizes=[size], seed=i) for i in range(12)]
    arrays = [np.zeros(size, np.uint8) for _ in made]
    reads = [
        connector.begin_read_blocking(told(item), nc.Descriptor(array))
        for item, array in zip(made, arrays, strict=True)
    ]
    for read in reads:
        read.wait_for_completion_blocking(20)
    for seed, array in enumerate(arrays):
        assert (array == content(seed, size)).all()


def test_rows_of_a_registered_pool_are_registered_as_one(connector, peer, content, count):
    """As caches of many blocks are: the lanes do not register each block."""
    blocks, size = 2000, 16 * 1024
    made = peer.do("passive", kind="readable", sizes=[blocks * size])
    whole = told(made)
    item = whole.descriptors[0]
    each = [
        nc.SerializedDescriptor(device="cpu", ptr=item.ptr + i * size, size=size)
        for i in range(blocks)
    ]
    metadata = nc.RdmaMetadata(
        descriptors=each,
        nixl_metadata=whole.nixl_metadata,
        notification_key=whole.notification_key,
        operation_kind=whole.operation_kind,
    )
    pool = np.zeros(blocks * size, np.uint8)
    descriptor = nc.Descriptor(pool)
    descriptor.register_memory(connector)
    engine_of(connector)._lanes.open()
    added, seen = [], []

    def add(original, *arguments):
        added.append(arguments[1])
        return original(*arguments)

    def register(original, *arguments):
        seen.append(added.copy())
        added.clear()
        return original(*arguments)

    rows = [nc.Descriptor(pool[i * size : (i + 1) * size]) for i in range(blocks)]
    with led("reg_dlist_add_desc", add), led("register_mem", register):
        read = connector.begin_read_blocking(metadata, rows)
        read.wait_for_completion_blocking(20)
    assert (pool == content(0, pool.size)).all()
    assert seen == [[descriptor.ptr]] * count


def test_small_pieces_go_without(connector, peer, content):
    """They gain nothing; and one process with itself took 13 s for 100,000 of 64 bytes."""
    size, piece = 2 * LARGE, 1024
    made = peer.do("passive", kind="readable", sizes=[size])
    whole = told(made)
    order = np.random.default_rng(0).permutation(size // piece).astype(np.uint32)
    group = Group("cpu", whole.descriptors[0].ptr, piece, piece, 4, order.tobytes())
    metadata = nc.RdmaMetadata(
        descriptors=BlockDescriptors([group]),
        nixl_metadata=whole.nixl_metadata,
        notification_key=whole.notification_key,
        operation_kind=whole.operation_kind,
    )
    memory = np.zeros(size, np.uint8)
    read = connector.begin_read_blocking(metadata, nc.Blocks(memory, piece, order))
    read.wait_for_completion_blocking(20)
    assert (memory == content(0, size)).all()
    assert not engine_of(connector)._lanes.all


def test_what_is_not_large_goes_without(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[LARGE - 1])
    array = np.zeros(LARGE - 1, np.uint8)
    connector.begin_read_blocking(told(made), nc.Descriptor(array)).wait_for_completion_blocking(20)
    assert not engine_of(connector)._lanes.all


@pytest.mark.parametrize(
    ("transports", "exist"),
    [
        (None, True),
        ("all", True),
        ("^ib", True),
        ("tcp", False),
        ("^cma", False),
        ("tcp,cma", True),
    ],
)
def test_only_where_ucx_may_copy(monkeypatch, transports, exist):
    if transports is None:
        monkeypatch.delenv("UCX_TLS", raising=False)
    else:
        monkeypatch.setenv("UCX_TLS", transports)
    assert lanes.Lanes("name", {b"UCX": {}}, None).exist is exist


def test_options_of_the_transport_are_kept():
    options = {b"engine_config": b"RNDV_THRESH=8", b"num_workers": b"1"}
    made = lanes.Lanes("name", {b"UCX": options, b"GDS": {}}, None)._plugins
    assert set(made) == {b"UCX"}
    assert made[b"UCX"] == {
        b"engine_config": b"RNDV_THRESH=8,NET_DEVICES=lo",
        b"num_workers": b"1",
    }
    assert not lanes.Lanes("name", {b"POSIX": {}}, None).exist


def test_a_peer_that_hangs_holds_up_no_other(connector, start_peer, content):
    """The lanes wait for its connection, and serve others meanwhile."""
    hung, other = start_peer(), start_peer()
    theirs = hung.do("passive", kind="readable", sizes=[LARGE], seed=1)
    hung.stop()
    slow = np.zeros(LARGE, np.uint8)
    waiting = connector.begin_read_blocking(told(theirs), nc.Descriptor(slow))
    assert all(lane.is_busy for lane in engine_of(connector)._lanes.all)
    for seed in (2, 3):
        made = other.do("passive", kind="readable", sizes=[LARGE], seed=seed)
        array = np.zeros(LARGE, np.uint8)
        read = connector.begin_read_blocking(told(made), nc.Descriptor(array))
        read.wait_for_completion_blocking(20)
        assert (array == content(seed, LARGE)).all()
    hung.resume()
    waiting.wait_for_completion_blocking(20)
    assert (slow == content(1, LARGE)).all()


def test_on_a_loop_beside_a_peer_that_hangs(connector, start_peer, content):
    """A beginning that might wait for a lane's agent goes to a thread."""
    hung, other = start_peer(), start_peer()
    theirs = hung.do("passive", kind="readable", sizes=[LARGE], seed=1)
    made = [other.do("passive", kind="readable", sizes=[LARGE], seed=i) for i in range(3)]
    arrays = [np.zeros(LARGE, np.uint8) for _ in range(4)]

    async def main():
        hung.stop()
        waiting = await connector.begin_read(told(theirs), nc.Descriptor(arrays[3]))
        for item, array in zip(made, arrays, strict=False):
            read = await connector.begin_read(told(item), nc.Descriptor(array))
            await read.wait_for_completion(20)
        hung.resume()
        await waiting.wait_for_completion(20)

    asyncio.run(main())
    for seed, array in zip((0, 1, 2, 1), arrays, strict=True):
        assert (array == content(seed, LARGE)).all()


def test_a_process_ends_while_a_lane_waits(start_peer):
    """Nobody waits for what does not end; the copy's memory is left as it is."""
    hung, active = start_peer(), start_peer()
    made = hung.do("passive", kind="readable", sizes=[LARGE])
    hung.stop()
    active.do("active", kind="read", metadata=made["metadata"], sizes=[LARGE])
    active.process.stdin.close()
    assert active.process.wait(10) == 0
    hung.resume()


def test_without_lanes_the_agent_does_it(connector, peer, content, monkeypatch, caplog):
    def start(names, plugins):
        raise nc.BackendError("no descriptors left")

    monkeypatch.setattr(lanes, "start_agents", start)
    for seed in range(2):
        made = peer.do("passive", kind="readable", sizes=[LARGE], seed=seed)
        array = np.zeros(LARGE, np.uint8)
        read = connector.begin_read_blocking(told(made), nc.Descriptor(array))
        read.wait_for_completion_blocking(20)
        assert (array == content(seed, LARGE)).all()
    assert [record.getMessage() for record in caplog.records] == [
        f"{connector.name}-1: large transfers hold up others: no descriptors left"
    ]


def test_one_lane_where_copies_do_not_give_way(connector, peer, monkeypatch):
    """With two, loops could wait for a processor until the kernel's next tick."""
    monkeypatch.setattr(lanes.redirect, "copies_refused", lambda: 1)
    made = peer.do("passive", kind="readable", sizes=[LARGE])
    read = connector.begin_read_blocking(told(made), nc.Descriptor(np.zeros(LARGE, np.uint8)))
    read.wait_for_completion_blocking(20)
    assert len(engine_of(connector)._lanes.all) == 1


def test_a_lane_that_cannot_be_made(connector, peer, content, monkeypatch, count):
    """All are given up, and their agents closed."""
    started, made = [], []
    opening = engine_of(connector)._lanes
    monkeypatch.setattr(
        lanes, "start_agents", lambda *given: started.extend(start_agents(*given)) or started
    )
    make = opening._make

    def make_or_not(agent):
        made.append(agent)
        if len(made) == count:
            raise MemoryError("no thread")
        return make(agent)

    monkeypatch.setattr(opening, "_make", make_or_not)
    offered = peer.do("passive", kind="readable", sizes=[LARGE])
    array = np.zeros(LARGE, np.uint8)
    read = connector.begin_read_blocking(told(offered), nc.Descriptor(array))
    read.wait_for_completion_blocking(20)
    assert (array == content(0, LARGE)).all()
    assert opening.all == []
    assert len(started) == count
    for agent in started:
        with pytest.raises(AgentClosedError):
            agent.metadata()


def test_none_is_opened_once_closed(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[LARGE])
    engine_of(connector)._lanes.stop(abandon=False)
    with pytest.raises(nc.ClosedError):
        connector.begin_read_blocking(told(made), nc.Descriptor(np.zeros(LARGE, np.uint8)))
    assert connector.stats()["operations"]["held"] == 0


def test_cancelled_while_the_peer_hangs(connector, peer):
    made = peer.do("passive", kind="readable", sizes=[LARGE])
    peer.stop()
    read = connector.begin_read_blocking(told(made), nc.Descriptor(np.zeros(LARGE, np.uint8)))
    read.cancel()
    with pytest.raises(nc.OperationCancelledError):
        read.wait_for_completion_blocking(10)
    peer.resume()
    until(lambda: connector.stats()["operations"]["held"] == 0)
    assert counts(connector) == (0, 0)


def test_a_dead_peer_and_its_successor(connector, start_peer, content):
    first = start_peer(name="twice")
    made = first.do("passive", kind="readable", sizes=[LARGE])
    array = np.zeros(LARGE, np.uint8)
    connector.begin_read_blocking(told(made), nc.Descriptor(array)).wait_for_completion_blocking(20)
    late = first.do("passive", kind="readable", sizes=[LARGE])
    first.kill()
    with pytest.raises((nc.PeerLostError, nc.TransferError)):
        connector.begin_read_blocking(
            told(late), nc.Descriptor(array)
        ).wait_for_completion_blocking(20)
    second = start_peer(name="twice")
    for seed in (5, 6):
        made = second.do("passive", kind="readable", sizes=[LARGE], seed=seed)
        read = connector.begin_read_blocking(told(made), nc.Descriptor(array))
        read.wait_for_completion_blocking(20)
        assert (array == content(seed, LARGE)).all()


def pieces(peer, kind, parts):
    """Return what a peer offers of one array, as one operation for each list of parts."""
    peer.do("array", size=8 * LARGE, seed=6)
    return [peer.do("parts", kind=kind, parts=part) for part in parts]


PARTS = [
    [(LARGE, 2 * LARGE)],
    [(0, 8 * LARGE)],
    [(0, 8 * LARGE), (LARGE + 64, LARGE)],
    [(LARGE + 64, LARGE), (0, 8 * LARGE)],
    [(3 * LARGE, LARGE), (5 * LARGE, 2 * LARGE)],
    [(2 * LARGE + 4096 * i, 4096 * 3) for i in range(0, 400, 5)],
]


@pytest.mark.parametrize("keys", ["that name no memory", "that name memory"])
def test_parts_of_one_array_in_any_order(connector, start_peer, content, request, keys):
    """What was met before hides nothing, and costs no connection."""
    if keys == "that name memory":
        request.getfixturevalue("keys_name_memory")
    peer = start_peer()
    made = pieces(peer, "readable", PARTS * 3)
    expected = content(6, 8 * LARGE)
    for parts, one in zip(PARTS * 3, made, strict=True):
        arrays = [np.zeros(length, np.uint8) for _, length in parts]
        read = connector.begin_read_blocking(told(one), [nc.Descriptor(a) for a in arrays])
        read.wait_for_completion_blocking(20)
        for (start, length), array in zip(parts, arrays, strict=True):
            assert (array == expected[start : start + length]).all()
        peer.do("wait", number=one["id"])
    figures = connector.stats()["peers"]
    assert (figures["connections"], figures["reloads"]) == (1, 0)
    for lane in engine_of(connector)._lanes.all:
        assert (lane.peers.connections, lane.peers.reloads) == (1, 0)
    (known,) = engine_of(connector).peers.known()
    assert known.lanes_failed == 0


def test_a_known_peer_takes_no_patience(connector, peer, content, monkeypatch):
    """Lanes that are open, and know the peer, are given their parts in one native call."""
    offers = [peer.do("passive", kind="readable", sizes=[LARGE], seed=seed) for seed in range(8)]
    starter = engine_of(connector).starter
    transfer = type(starter).transfer
    patient = []
    monkeypatch.setattr(
        type(starter), "transfer", lambda *given: (patient.append(1), transfer(*given))[1]
    )
    arrays = [np.zeros(LARGE, np.uint8) for _ in offers]
    for made, array in zip(offers, arrays, strict=True):
        read = connector.begin_read_blocking(told(made), nc.Descriptor(array))
        read.wait_for_completion_blocking(20)
    for seed, array in enumerate(arrays):
        assert (array == content(seed, LARGE)).all()
    # The first one opens them. A pause of 50 ms between two has the peer looked at again.
    assert 1 <= len(patient) < len(offers)
    assert all(lane.peers.connections == 1 for lane in engine_of(connector)._lanes.all)
    assert counts(connector) == (0, 0)


@pytest.fixture
def led_astray():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("kind", ["readable", "writable"])
@pytest.mark.parametrize("fault", ["connection", "request", "registration"])
def test_what_fails_in_a_lane_the_connection_does(
    connector, peer, content, digest, monkeypatch, led_astray, kind, fault
):
    """At once, with the lane's connection made anew; after a few of these it is not tried again."""
    opened = engine_of(connector)._lanes.open()
    tried = []

    agent = handle_of(opened[-1]._agent)

    def fail(original, *arguments):
        if arguments[0] == agent:
            tried.append(1)
            return -2
        return original(*arguments)

    if fault == "connection":

        def refused(*_, **__):
            tried.append(1)
            raise nc.PeerLostError("not reached")

        monkeypatch.setattr(opened[-1].peers, "admit", refused)
    else:
        faults = {"request": "create_xfer_req", "registration": "register_mem"}
        led_astray.enter_context(led(faults[fault], fail))
    for seed in range(6):
        made = peer.do("passive", kind=kind, sizes=[LARGE], seed=seed)
        if kind == "readable":
            array = np.zeros(LARGE, np.uint8)
            operation = connector.begin_read_blocking(told(made), nc.Descriptor(array))
        else:
            array = content(seed, LARGE)
            operation = connector.begin_write_blocking(nc.Descriptor(array), told(made))
        operation.wait_for_completion_blocking(20)
        peer.do("wait", number=made["id"])
        if kind == "readable":
            assert (array == content(seed, LARGE)).all()
        else:
            assert peer.do("digests", number=made["id"])["digests"] == [digest(array)]
    # A registration that was refused in the native call is tried once more before it counts.
    assert len(tried) in ({2, 3} if fault == "registration" else {2})
    (known,) = engine_of(connector).peers.known()
    assert known.lanes_failed == 2
    assert connector.stats()["peers"]["reloads"] == 0
    assert counts(connector) == (0, 0)


@given(
    sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=20),
    pages=st.integers(1, 4),
)
def test_split_loses_nothing(sizes, pages):
    rows = [((i + 1) << 32, size, i % 3) for i, size in enumerate(sizes)]
    regions = Regions([*rows, (1 << 20, 4096 * pages, 0)])
    tables = regions.split(pages)
    assert 1 <= len(tables) <= pages
    assert sum(table.nbytes for table in tables) == regions.nbytes
    joined = []
    for start, size, device in (row for table in tables for row in table):
        if joined and joined[-1][0] + joined[-1][1] == start and joined[-1][2] == device:
            joined[-1][1] += size
        else:
            joined.append([start, size, device])
    assert [tuple(row) for row in joined] == [*rows, (1 << 20, 4096 * pages, 0)]
    assert max(table.nbytes for table in tables) <= -(-regions.nbytes // pages) + 4096

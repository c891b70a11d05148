"""A NIXL that misbehaves on script: see scripted/nixl.c. What moves, the real one moves."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from compiling import build
from peer import content, digest
from processes import DEADLINE, until

import nixl_connect as nc
from nixl_connect.backend import library

SOURCE = Path(__file__).parents[1] / "scripted" / "nixl.c"
BACKEND = -2
# Seconds: what a pair keeps that may still go on.
QUARANTINE = 2.0
NOT_FOUND = -6
ERRORS = ("PeerLostError", "TransferError", "BackendError", "RegistrationError", "MetadataError")


@pytest.fixture(scope="session")
def scripted(tmp_path_factory):
    """The environment of a peer whose NIXL is scripted."""
    built = tmp_path_factory.mktemp("scripted") / "libnixl_capi.so"
    build([SOURCE], built)
    return {"NIXL_CONNECT_LIBRARY": str(built), "SCRIPTED_NIXL": library.load().path}


@pytest.fixture
def pair(start_peer, scripted):
    """A passive and an active peer, both scripted, that have moved something already."""
    passive, active = (start_peer(environment=scripted, quarantine=QUARANTINE) for _ in range(2))
    assert move(passive, active)
    return passive, active


@pytest.fixture
def apart(pair):
    """The same, whose messages go through NIXL, as between hosts."""
    pair[1].do("as_if_elsewhere")
    return pair


def begin(passive, active, kind="readable", sizes=(1000,), seed=0, **options):
    """Begin one transfer; return the numbers of the operations on both sides."""
    made = passive.do("passive", kind=kind, sizes=list(sizes), seed=seed)
    verb = "read" if kind == "readable" else "write"
    begun = active.do(
        "active",
        kind=verb,
        metadata=made["metadata"],
        sizes=list(sizes),
        seed=seed,
        **options,
    )
    return made["id"], begun["id"]


def move(passive, active, kind="readable", sizes=(1000,), seed=0):
    """Make one transfer; return whether all bytes are the same on both sides."""
    number, begun = begin(passive, active, kind, sizes, seed)
    active.do("wait", number=begun)
    passive.do("wait", number=number)
    theirs = passive.do("digests", number=number)
    return active.do("digests", number=begun) == theirs


def attempt(peer, do, **arguments):
    """Do something; return the answer, or None, and the error, or None."""
    try:
        return peer.do(do, **arguments), None
    except Exception as error:
        if not hasattr(error, "kind"):  # the peer hangs, or is gone
            raise
        return None, error


def fails(peer, do, *kinds, **arguments):
    """Do something that must fail in one of these ways; return the text."""
    _, error = attempt(peer, do, **arguments)
    assert error is not None
    assert error.kind in kinds, str(error)
    return str(error)


def read_or_fail(passive, active, seed, size=1000):
    """Read, with every byte compared, or fail in a way that callers know; whether it was read."""
    made = passive.do("passive", kind="readable", sizes=[size], seed=seed)
    begun, error = attempt(
        active, "active", kind="read", metadata=made["metadata"], sizes=[size], timeout=10
    )
    if begun is not None:
        _, error = attempt(active, "wait", number=begun["id"])
    if error is not None:
        assert error.kind in ERRORS, str(error)
        passive.do("cancel", number=made["id"])
        return False
    passive.do("wait", number=made["id"])
    theirs = passive.do("digests", number=made["id"])
    assert active.do("digests", number=begun["id"]) == theirs
    return True


def settled(peer):
    """Whether nothing is held, registered or in flight any more."""
    held = peer.do("held")
    return not (held["operations"] or held["active"] or held["registrations"])


ACTIVE_CALLS = [
    "load_remote_md",
    "create_reg_dlist",
    "reg_dlist_add_desc",
    "register_mem",
    "create_xfer_dlist",
    "xfer_dlist_add_desc",
    "create_xfer_req",
    "post_xfer_req",
    "gen_notif",
]


@pytest.mark.parametrize("status", [BACKEND, NOT_FOUND])
@pytest.mark.parametrize("call", ACTIVE_CALLS)
def test_a_call_of_the_active_side_fails_once(apart, call, status):
    """The operation fails or is made over a new connection; the next one works."""
    passive, active = apart
    if call == "load_remote_md":
        active.do("keys_name_memory")  # else nothing is to be loaded
    before = active.do("calls", call=call)["count"]
    active.do("misbehave", call=call, action="fail", value=status)
    read_or_fail(passive, active, seed=1)
    assert active.do("calls", call=call)["count"] > before
    active.do("behave")
    for seed in (2, 3):
        assert move(passive, active, seed=seed)
    until(lambda: settled(active))


@pytest.mark.parametrize("call", ["register_mem", "get_local_partial_md"])
def test_a_call_of_the_passive_side_fails_once(pair, call):
    passive, active = pair
    passive.do("misbehave", call=call, action="fail", value=BACKEND)
    text = fails(passive, "passive", *ERRORS, "StateError", kind="readable", sizes=[1000])
    assert "ERR_BACKEND" in text or "StateError" in text
    passive.do("behave")
    assert move(passive, active, seed=5)


@pytest.mark.parametrize("call", ["register_mem", "load_remote_md", "create_xfer_req"])
def test_every_third_call_fails(pair, call):
    """Of thirty operations, each ends, and right after the last fault all is well."""
    passive, active = pair
    failed = 0
    for turn in range(30):
        if turn % 3 == 0:
            active.do("misbehave", call=call, action="fail", value=BACKEND)
        failed += not read_or_fail(passive, active, turn, 100 + turn)
    assert failed <= 10
    active.do("behave")
    assert move(passive, active, seed=99)
    until(lambda: settled(active))


def test_registration_that_fails_on_a_later_region(pair):
    passive, active = pair
    active.do("misbehave", call="reg_dlist_add_desc", action="fail", value=BACKEND, skip=2)
    made = passive.do("passive", kind="readable", sizes=[500] * 5)
    fails(
        active,
        "active",
        "RegistrationError",
        kind="read",
        metadata=made["metadata"],
        sizes=[500] * 5,
    )
    assert settled(active)
    active.do("behave")
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[500] * 5)
    active.do("wait", number=begun["id"])
    passive.do("wait", number=made["id"])


def test_a_notification_that_is_lost(apart):
    """The passive side's deadline ends it; the active side cannot know."""
    passive, active = apart
    active.do("misbehave", call="gen_notif", action="drop", count=-1)
    made = passive.do("passive", kind="readable", sizes=[1000], timeout=0.5)
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[1000])
    active.do("wait", number=begun["id"])
    fails(passive, "wait", "TransferTimeoutError", number=made["id"])
    active.do("behave")
    assert move(passive, active, seed=1)


def test_a_notification_that_comes_after_the_deadline_ends_the_quarantine(start_peer, scripted):
    passive = start_peer(environment=scripted, quarantine=60.0)
    active = start_peer(environment=scripted)
    assert move(passive, active)
    active.do("as_if_elsewhere")
    active.do("misbehave", call="gen_notif", action="late", value=1500, count=-1)
    made = passive.do("passive", kind="readable", sizes=[1000], timeout=0.3)
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[1000])
    active.do("wait", number=begun["id"])
    fails(passive, "wait", "TransferTimeoutError", number=made["id"])
    assert passive.do("stats")["stats"]["operations"]["held_bytes"] == 1000
    until(lambda: passive.do("stats")["stats"]["operations"]["held_bytes"] == 0)


def test_notifications_that_come_twice(apart):
    passive, active = apart
    active.do("misbehave", call="gen_notif", action="twice", count=-1)
    for seed in range(5):
        assert move(passive, active, seed=seed)
    notifications = passive.do("stats")["stats"]["notifications"]
    assert notifications["unmatched"] >= 4


def test_notifications_of_others(apart):
    passive, active = apart
    active.do("misbehave", call="gen_notif", action="foreign", value=500, count=4)
    for seed in range(5):
        assert move(passive, active, seed=seed)
    until(lambda: passive.do("stats")["stats"]["notifications"]["unmatched"] >= 500)


@pytest.mark.parametrize("kind", ["readable", "writable"])
def test_a_transfer_that_never_ends(pair, kind):
    """Its deadline ends it for those who wait; its memory stays until NIXL is done with it."""
    passive, active = pair
    active.do("misbehave", call="post_xfer_req", action="hold")
    number, begun = begin(passive, active, kind, sizes=[5000], timeout=0.3)
    fails(active, "wait", "TransferTimeoutError", number=begun)
    stats = active.do("stats")["stats"]["operations"]
    assert stats["active"] == stats["held"] == 1
    assert stats["held_bytes"] == 5000
    # Others go on meanwhile.
    assert move(passive, active, seed=3)
    active.do("behave")
    until(lambda: settled(active))
    text = fails(passive, "wait", "TransferError", number=number)
    assert "peer reports" in text


@pytest.mark.parametrize("kind", ["readable", "writable"])
def test_a_cancelled_transfer_keeps_its_memory(pair, kind):
    """Cancelled and dropped by its owner, it is over when NIXL says so."""
    passive, active = pair
    active.do("misbehave", call="post_xfer_req", action="hold")
    number, begun = begin(passive, active, kind, sizes=[5000])
    active.do("cancel", number=begun)
    active.do("drop", number=begun)
    assert move(passive, active, seed=3)
    stats = active.do("stats")["stats"]
    assert stats["operations"]["held_bytes"] == 5000
    assert stats["registrations"]["count"] == 1
    # The passive side learns of it no earlier: its memory may still be in use, too.
    assert passive.do("status", number=number)["status"] == "INIT"
    active.do("behave")
    until(lambda: settled(active))
    fails(passive, "wait", "OperationCancelledError", number=number)


def test_a_late_write_finds_its_memory(start_peer, scripted):
    """What was cancelled and dropped here is still written to there, and is not freed before."""
    passive = start_peer(environment=scripted, quarantine=60.0)
    active = start_peer(environment=scripted)
    assert move(passive, active)
    size = 4 << 20  # large enough for the allocator to unmap it when it is freed
    active.do("misbehave", call="post_xfer_req", action="hold", count=-1)
    number, begun = begin(passive, active, "writable", sizes=[size - 4096])
    passive.do("cancel", number=number)
    passive.do("drop", number=number)
    assert passive.do("stats")["stats"]["operations"]["held_bytes"] == size - 4096
    active.do("behave")
    active.do("wait", number=begun)
    until(lambda: passive.do("stats")["stats"]["operations"]["held_bytes"] == 0)
    assert move(passive, active, seed=4)


def test_closing_with_a_transfer_that_never_ends(start_peer, scripted):
    """It does not wait for ever, and the process ends as usual."""
    passive = start_peer(environment=scripted)
    active = start_peer(environment=scripted, drain=0.3)
    assert move(passive, active)
    active.do("misbehave", call="post_xfer_req", action="hold", count=-1)
    number, begun = begin(passive, active, sizes=[5000])
    active.do("close", deadline=5)
    fails(active, "wait", "OperationCancelledError", "ClosedError", number=begun)
    assert active.do("status", number=begun)["status"] == "STOP"
    passive.do("cancel", number=number)
    active.process.stdin.close()
    assert active.process.wait(DEADLINE) == 0


def test_nixl_stops_to_give_notifications_and_resumes(apart):
    passive, active = apart
    passive.do("misbehave", call="get_notifs", action="fail", value=BACKEND, count=-1)
    number, begun = begin(passive, active, seed=8)
    assert attempt(passive, "wait", number=number, timeout=0.3)[1].kind == "WaitTimeoutError"
    assert passive.do("status", number=number)["status"] == "INIT"
    passive.do("behave")
    active.do("wait", number=begun)
    passive.do("wait", number=number)


def test_a_status_that_fails_while_the_transfer_goes_on(pair):
    """NIXL says that it failed: the waiters learn it, and the memory stays for a quarantine."""
    passive, active = pair
    active.do("misbehave", call="post_xfer_req", action="hold")
    number, begun = begin(passive, active, sizes=[5000])
    released = active.do("calls", call="release_xfer_req")["count"]
    active.do("misbehave", call="get_xfer_status", action="fail", value=BACKEND)
    fails(active, "wait", "TransferError", number=begun)
    fails(passive, "wait", "TransferError", number=number)
    for peer, name in ((active, begun), (passive, number)):
        peer.do("drop", number=name)
        assert peer.do("stats")["stats"]["operations"]["held_bytes"] == 5000
        assert peer.do("stats")["stats"]["operations"]["quarantined_bytes"] == 5000
    # Another deadline passes meanwhile.
    other = active.do("passive", kind="readable", sizes=[100], timeout=0.1)
    fails(active, "wait", "TransferTimeoutError", number=other["id"])
    assert active.do("stats")["stats"]["operations"]["quarantined_bytes"] == 5100
    assert active.do("stats")["stats"]["registrations"]["count"] == 1
    assert active.do("calls", call="release_xfer_req")["count"] == released
    active.do("behave")
    assert move(passive, active, seed=6)
    until(lambda: settled(active) and settled(passive))
    assert active.do("calls", call="release_xfer_req")["count"] > released
    assert move(passive, active, seed=7)


def test_an_error_is_not_an_end(start_peer, scripted):
    """NIXL fails a transfer whose bytes are still on their way, and arrive."""
    environment = scripted | {"UCX_TLS": "tcp"}
    passive = start_peer(environment=environment)
    active = start_peer(environment=environment, quarantine=QUARANTINE)
    assert move(passive, active)
    size = 1 << 20
    made = passive.do("passive", kind="readable", sizes=[size], seed=3)
    passive.stop()
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[size], seed=3)
    active.do("misbehave", call="get_xfer_status", action="fail", value=BACKEND)
    fails(active, "wait", "TransferError", number=begun["id"])
    before = active.do("digests", number=begun["id"])
    assert active.do("stats")["stats"]["operations"]["held_bytes"] == size
    passive.resume()
    until(lambda: active.do("digests", number=begun["id"]) != before)
    assert active.do("stats")["stats"]["operations"]["held_bytes"] == size
    active.do("drop", number=begun["id"])
    until(lambda: settled(active))


def test_closing_with_a_transfer_that_failed_and_may_go_on(start_peer, scripted):
    """Its agent and its memory stay for good, and the process ends as usual."""
    passive, active = start_peer(environment=scripted), start_peer(environment=scripted)
    assert move(passive, active)
    active.do("misbehave", call="post_xfer_req", action="hold")
    _, begun = begin(passive, active, sizes=[5000])
    active.do("misbehave", call="get_xfer_status", action="fail", value=BACKEND)
    fails(active, "wait", "TransferError", number=begun)
    destroyed = active.do("calls", call="destroy_agent")["count"]
    active.do("drop", number=begun)
    active.do("close")
    assert active.do("calls", call="destroy_agent")["count"] == destroyed
    held = active.do("held")
    assert (held["operations"], held["registrations"]) == (1, 1)
    active.process.stdin.close()
    assert active.process.wait(DEADLINE) == 0


def test_closing_destroys_the_agents(start_peer, scripted):
    active = start_peer(environment=scripted)
    assert move(start_peer(environment=scripted), active)
    destroyed = active.do("calls", call="destroy_agent")["count"]
    active.do("close")
    assert active.do("calls", call="destroy_agent")["count"] >= destroyed + 2


def test_a_peer_that_dies_while_more_of_it_is_loaded(start_peer, scripted):
    """NIXL that saw it die before the load would never load anything under its name again."""
    active = start_peer(environment=scripted)
    passive = start_peer(environment=scripted, name="mortal")
    assert move(passive, active)
    active.do("keys_name_memory")
    made = passive.do("passive", kind="readable", sizes=[50_000])
    active.do("misbehave", call="load_remote_md", action="delay", value=500)
    loads = active.do("calls", call="load_remote_md")["count"]
    active.send("active", kind="read", metadata=made["metadata"], sizes=[50_000], timeout=10)
    time.sleep(0.2)  # the load has begun
    passive.kill()
    with pytest.raises(Exception, match="PeerLostError"):
        active.do("wait", number=active.answer()["id"])
    assert active.do("calls", call="load_remote_md")["count"] > loads
    successor = start_peer(environment=scripted, name="mortal")
    assert move(successor, active)


@pytest.mark.parametrize("keys", ["that name no memory", "that name memory"])
def test_keys_that_change_under_continuous_traffic(start_peer, scripted, connector, request, keys):
    """As with RDMA: what is registered again has another key, and allocators repeat themselves."""
    if keys == "that name memory":
        request.getfixturevalue("keys_name_memory")
    passive = start_peer(environment=scripted, quarantine=0.0)
    passive.do("misbehave", call="get_local_partial_md", action="rekey", count=-1)
    turn = threading.Lock()
    end = time.monotonic() + 4
    failures, moved = [], []

    def run(thread):
        # Large enough that some are in flight while the peer is connected anew for another.
        size = (1000, 5000, 300_000, 2_000_000)[thread]
        try:
            for seed in range(thread * 10_000, (thread + 1) * 10_000):
                if time.monotonic() > end:
                    return
                with turn:
                    made = passive.do("passive", kind="readable", sizes=[size], seed=seed)
                array = np.zeros(size, np.uint8)
                told = nc.RdmaMetadata.model_validate(made["metadata"])
                read = connector.begin_read_blocking(told, nc.Descriptor(array), timeout=10)
                read.wait_for_completion_blocking(10)
                assert digest(array) == digest(content(seed, size))
                with turn:
                    passive.do("wait", number=made["id"])
                    passive.do("drop", number=made["id"])
                moved.append(size)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert set(moved) == {1000, 5000, 300_000, 2_000_000}
    assert connector.stats()["peers"]["reloads"] >= 1

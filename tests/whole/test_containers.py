"""Two containers of one machine: which way the data goes, by what they share and what they may.

What `docs/howto/containers.md` says of each is what is found here.
"""

import json
import subprocess
import sys

import containers
import pytest
from commands import client
from networks import Network, require_namespaces

pytestmark = pytest.mark.timeout(120)
OWN_PROCESSES = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
OWN_IPC = ["unshare", "--ipc"]


@pytest.fixture(scope="module")
def found():
    """Return what is found out once, for all tests."""
    return []


@pytest.fixture(autouse=True)
def able(found, moved):
    """Skip where no containers can be made, or nothing goes directly even without them."""
    containers.require_root()
    if not found:
        found.append(moved([], []))
    if not found[0]:
        pytest.skip("UCX does not copy between processes here")


@pytest.fixture
def moved(serve):
    """Return a function that reads and writes between two containers.

    It says whether UCX copied between their processes.
    """

    def move(there, here, host="127.0.0.1", **environment):
        public = () if host == "127.0.0.1" else ("--public", "--host", host)
        _, port = serve(*public, host=host, prefix=there, environment=environment)
        status, out, err = client(
            *(host, "--port", port, "--json", "--sizes", "8,4MiB"),
            prefix=here,
            environment=environment,
        )
        assert status == 0, err
        report = json.loads(out)
        assert [(row["direction"], row["bytes"]) for row in report["rows"]] == [
            *(("read", 8), ("read", 4 << 20), ("write", 8), ("write", 4 << 20)),
        ]
        return "cma" in report["transports"]

    return move


@pytest.fixture
def pod():
    """Namespaces of processes and of IPC that two containers share."""
    shared = containers.Shared("--pid", "--ipc")
    yield shared.prefix
    shared.end()


@pytest.fixture
def bridge():
    """Two network namespaces, as containers at a bridge have them."""
    require_namespaces()
    network = Network(2)
    yield [host.prefix for host in network.hosts]
    network.delete()


@pytest.mark.parametrize("own", [OWN_PROCESSES, OWN_IPC], ids=["processes", "IPC"])
def test_namespaces_of_their_own(moved, own):
    """UCX takes processes of other namespaces for those of another machine."""
    assert not moved(own, own)


def test_a_pod_that_shares_its_processes(moved, pod):
    assert moved(pod, pod)


def test_a_bridge(moved, bridge):
    there, here = ([*prefix, *OWN_PROCESSES] for prefix in bridge)
    assert not moved(there, here, host="10.77.0.1")


def test_a_bridge_and_shared_processes(moved, bridge, pod):
    there, here = ([*prefix, *pod] for prefix in bridge)
    assert moved(there, here, host="10.77.0.1")


@pytest.mark.parametrize("who", ["both", "the one that moves", "the one that is read"])
def test_a_filter_of_system_calls(moved, who):
    """Found out by UCX before it relies on what is forbidden."""
    there = [] if who == "the one that moves" else containers.FILTERED
    here = [] if who == "the one that is read" else containers.FILTERED
    assert not moved(there, here)


@pytest.mark.parametrize("size", ["64m", "8m"])
def test_little_shared_memory(moved, size):
    """64 MiB are what Docker gives; with 8 UCX does without."""
    prefix = containers.with_shared_memory(size)
    assert moved(prefix, prefix)


def test_a_user_without_rights_and_without_home(moved):
    assert moved(containers.as_user(), containers.as_user())


@pytest.mark.parametrize("there", ["another user", "root"])
def test_two_users(moved, there):
    """Neither may look into the other's memory; nor does one listen to the other's doorbell."""
    prefix = [] if there == "root" else containers.as_user(containers.NOBODY - 1)
    assert not moved(prefix, containers.as_user())


@pytest.mark.parametrize("fewer", ["both", "the one that moves", "the one that is read"])
def test_rights(moved, fewer):
    """Linux does not let a process look into one that may do more, unless it may look into all."""
    there = [] if fewer == "the one that moves" else containers.FEWER_RIGHTS
    here = [] if fewer == "the one that is read" else containers.FEWER_RIGHTS
    assert moved(there, here) == (fewer != "the one that moves")


def test_all_of_it_at_once(moved, bridge):
    """Little of everything: it goes on."""
    there, here = (
        [*prefix, *containers.with_shared_memory("8m"), *OWN_PROCESSES, *containers.FILTERED]
        for prefix in bridge
    )
    assert not moved(there, here, host="10.77.0.1")


def test_that_the_filter_forbids():
    """Or the tests above say nothing."""
    program = (
        "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); "
        "libc.process_vm_readv(os.getpid(), None, 0, None, 0, 0); print(ctypes.get_errno())"
    )
    run = subprocess.run(
        [*containers.FILTERED, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert run.stdout == "1\n"

"""Provokes the errors of docs/howto/troubleshooting.md: the page has the texts that users see."""

import ast
import asyncio
import contextlib
import os
import pickle
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from calls import held_up
from pages import ROOT, pattern
from processes import DEADLINE, until

import nixl_connect as nc
from nixl_connect.memory import cuda

PAGE = ROOT / "docs" / "howto" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.*)`$", PAGE.read_text(), re.MULTILINE)
LARGE = 64 << 20

# What is not provoked here, and where else it is, or why not.
ELSEWHERE = {
    "BackendError: NIXL … lays out its metadata in a way that this version of nixl-connect does "
    "not know: …": "takes another NIXL: test_scripted.py",
    "PeerLostError: peer … is gone": "depends on when its end is seen: test_scout.py",
    "TransferTimeoutError: another thread did not finish in time to connect peer …": (
        "takes a host that does not answer: test_adversity.py, test_network.py"
    ),
    "TransferTimeoutError: a prepared transfer with peer … did not end in time": (
        "takes a peer that is stopped, over TCP: test_prepared.py"
    ),
    "TransferError: … moved its data, but the peer could not be told": "test_scripted.py",
    "TransferError: … failed: local memory is … (NIXL: …)": "takes a hole: test_mapped.py",
    "TransferError: … failed (NIXL: …)": "takes a fault of NIXL: test_scripted.py",
    "TransferError: NIXL refused the transfer with peer …": "test_scripted.py",
    "ArgumentError: data: … is not memory of a CUDA device": "takes a driver: tests/driver",
    "ArgumentError: data: … is memory of the host, not of …": "tests/driver",
    "ArgumentError: data: … bytes from … leave their allocation, which ends after …": (
        "tests/driver"
    ),
    "CudaError: the stream is being captured in a graph: no end to wait for": "tests/driver",
    "CudaError: the work on a descriptor's stream failed: …": "tests/driver",
    "TransferTimeoutError: the work on the descriptors' streams was not done within … s": (
        "tests/driver"
    ),
    "StateError: a signal handler or a finalizer has interrupted its thread while that …: it "
    "cannot use the connector for this now; leave it to a task or to another thread": (
        "takes a moment within a call: test_signals.py"
    ),
    "TransferError: the descriptors name memory of this connector that is not registered; the "
    "operation that they are from has ended": "test_within.py",
    "NIXL keeps … registered: …": "logged: test_scripted.py",
    "letting go was interrupted, and is tried again: …": "logged: test_reaper.py",
    "…: transfers did not end in time; their memory stays": "logged: test_scripted.py",
    "…: large transfers hold up others: …": "logged: test_lanes.py",
}


class Lab:
    """Two connectors, and more where they are needed."""

    def __init__(self, make_connector, start_peer):
        self.make, self.start_peer = make_connector, start_peer
        self.owner, self.mover = make_connector(), make_connector()

    def readable(self, data=b"abc", connector=None, **options):
        connector = connector or self.owner
        return connector.create_readable_blocking(nc.Descriptor(data), **options)

    def read(self, metadata, size=3, connector=None, **options):
        connector = connector or self.mover
        target = nc.Descriptor(np.zeros(size, np.uint8))
        return connector.begin_read_blocking(metadata, target, **options)

    def altered(self, **fields):
        with self.readable() as readable:
            metadata = readable.metadata().model_dump() | fields
        return self.read(nc.RdmaMetadata.model_validate(metadata))


@pytest.fixture
def lab(make_connector, start_peer):
    return Lab(make_connector, start_peer)


CASES = []


def provokes(heading):
    """Mark a function that raises what a heading says."""

    def note(case):
        CASES.append(pytest.param(heading, case, id=case.__name__))
        return case

    return note


@pytest.mark.parametrize(("heading", "case"), CASES)
def test_text(lab, heading, case):
    assert heading in HEADINGS
    with pytest.raises(Exception) as caught:  # noqa: PT011, which one is what is tested
        case(lab)
    assert pattern(heading).fullmatch(f"{type(caught.value).__name__}: {caught.value}")


def test_each_heading_is_provoked_or_accounted_for():
    assert len(HEADINGS) == len(set(HEADINGS))
    assert set(HEADINGS) == {case.values[0] for case in CASES} | set(ELSEWHERE)


def test_every_error_has_a_heading():
    """But those that say no more than their base."""
    kinds = {heading.partition(":")[0] for heading in HEADINGS}
    assert set(nc.errors.__dict__) & kinds >= {
        name
        for name, value in vars(nc.errors).items()
        if isinstance(value, type) and name not in {"NixlConnectError", "InternalError"}
    }


def _texts():
    """Return the texts in the library's sources, with … for what is put in."""
    for path in (ROOT / "nixl_connect").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                yield "".join(p.value if isinstance(p, ast.Constant) else "…" for p in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub("%[sd]", "…", node.value)


@pytest.mark.parametrize("heading", ELSEWHERE)
def test_text_of_what_is_not_provoked(heading):
    text = re.sub(r"^\w+Error: ", "", heading).removesuffix(" (NIXL: …)").strip("… :")
    assert any(pattern(text).search(known) for known in _texts()), text


# --- starting -----------------------------------------------------------------------------------


def elsewhere(code, **environment):
    """Run code in a process of its own, and raise the error that it ends with."""
    done = subprocess.run(
        [sys.executable, "-c", "import nixl_connect as nc\n" + code],
        env=os.environ | environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    kind, _, text = done.stderr.strip().splitlines()[-1].partition(": ")
    raise getattr(nc, kind.rpartition(".")[2])(text)


OPEN = "connector = nc.Connector()\nconnector.create_readable_blocking(nc.Descriptor(b'abc'))\n"


@provokes("LibraryError: NIXL cannot be loaded: …")
def no_nixl(lab):
    elsewhere(OPEN, NIXL_CONNECT_LIBRARY="/nowhere/libnixl_capi.so")


@provokes("LibraryError: There are two NIXLs in this process, which cannot work: …")
def two_nixls(lab):
    # By what the kernel says is mapped.
    elsewhere(
        "from nixl_connect.backend import library\n"
        "library._cores = lambda: {'/one/libnixl.so', '/other/libnixl.so'}\n" + OPEN
    )


@provokes(
    "BackendError: opening a connector may need … file descriptors, and … of … are in use: "
    "raise the limit (ulimit -n)"
)
def no_files(lab):
    elsewhere("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n" + OPEN)


@provokes(
    "BackendError: connecting peer … may need … file descriptors, and … of … are in use: "
    "raise the limit (ulimit -n)"
)
def no_files_for_a_peer(lab):
    metadata = lab.readable().metadata().model_dump_json()
    elsewhere(
        OPEN + "import os, resource\n"
        "most = max(map(int, os.listdir('/proc/self/fd'))) + 12\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
        f"metadata = nc.RdmaMetadata.model_validate_json({metadata!r})\n"
        "connector.begin_read_blocking(metadata, nc.Descriptor(bytearray(3)))\n"
    )


@provokes("BackendError: NIXL cannot start the transport …")
def no_transport(lab):
    lab.readable(connector=lab.make(backends=["NONE"]))


@provokes("BackendError: NIXL cannot start the transport …")
def no_transport_of_ucx(lab):
    elsewhere(OPEN, UCX_TLS="none")


# The child leaves without freeing memory: there UCX's hook may wait for a lock that nobody has.
FORK = """
import os, sys
if os.fork():
    os._exit(os.wait()[1] >> 8)
say = sys.excepthook
sys.excepthook = lambda *error: (say(*error), sys.stderr.flush(), os._exit(1))
"""


@provokes("BackendError: NIXL was used before this process was forked, …")
def forked(lab):
    elsewhere(OPEN + FORK + OPEN)


@provokes(
    "ClosedError: the connector of … was opened before this process was forked; open connectors in "
    "children only, or start processes with multiprocessing's 'spawn' or 'forkserver'"
)
def the_parents_connector(lab):
    elsewhere(OPEN + FORK + "connector.create_readable_blocking(nc.Descriptor(b'abc'))")


@provokes(
    "ClosedError: the pool's connector was opened before this process was forked; make pools in "
    "children only, or start processes with multiprocessing's 'spawn' or 'forkserver'"
)
def the_parents_pool(lab):
    elsewhere(OPEN + "pool = nc.HostPool(connector)\n" + FORK + "pool.acquire_blocking(100)")


@provokes("TypeError: … cannot be copied or pickled; …")
def a_connector_for_a_child(lab):
    pickle.dumps(lab.owner)


@provokes("TypeError: … cannot be copied or pickled; …")
def an_operation_for_a_child(lab):
    pickle.dumps(lab.readable())


# --- memory -------------------------------------------------------------------------------------


@provokes("ArgumentError: data: … is not contiguous; make a contiguous copy, and use that one")
def not_contiguous(lab):
    nc.Descriptor(np.zeros((4, 4))[:, :2])


@provokes("ArgumentError: data: null pointer")
def null(lab):
    nc.Descriptor((0, 8))


@provokes("ArgumentError: data: size must be at least 1 byte, not 0")
def empty(lab):
    nc.Descriptor(np.zeros(0))


@provokes("ArgumentTypeError: data must be a bytes-like object, …, not …")
def no_bytes(lab):
    nc.Descriptor("text")


@provokes("ArgumentError: data: an array of Python objects cannot be transferred")
def objects(lab):
    nc.Descriptor(np.array([object()]))


@provokes("ArgumentError: data: the device is given as …, but the array is on …")
def another_device(lab):
    nc.Descriptor((np.zeros(3), "cuda:0"))


@provokes("ArgumentTypeError: local_descriptors must be a Descriptor or a list of them, not …")
def an_array(lab):
    lab.owner.create_readable_blocking(np.zeros(3))


@provokes("ArgumentTypeError: local_descriptors[…] must be a Descriptor or Blocks, not …")
def a_list_of_arrays(lab):
    lab.owner.create_readable_blocking([np.zeros(3)])


@provokes(
    "ArgumentError: local_descriptors[…] is read-only memory, so nothing can be received in it"
)
def read_only(lab):
    lab.owner.create_writable_blocking(nc.Descriptor(b"abc"))


@provokes(
    "ArgumentError: local_descriptors[…] is on …, but the first is on …; "
    "one operation takes memory of one kind"
)
def mixed(lab):
    device = nc.SerializedDescriptor(device="cuda:0", ptr=4096, size=16).to_descriptor()
    lab.owner.create_readable_blocking([nc.Descriptor(b"abc"), device])


@provokes("ArgumentError: local_descriptors[…] has … bytes, but the peer's has …")
def another_size(lab):
    lab.read(lab.readable().metadata(), size=4)


@provokes("ArgumentError: local_descriptors has … descriptors, but the peer's metadata has …")
def another_count(lab):
    two = [nc.Descriptor(bytearray(1)), nc.Descriptor(bytearray(2))]
    lab.mover.begin_read_blocking(lab.readable().metadata(), two)


@provokes(
    "ArgumentError: local_descriptors[…] and […] overlap, so what would arrive there is undefined"
)
def twice(lab):
    memory = bytearray(8)
    lab.owner.create_writable_blocking([nc.Descriptor(memory), nc.Descriptor(memory)])


@provokes(
    "ArgumentError: local_descriptors[…] overlaps remote_metadata.descriptors[…], "
    "memory of this process too; …"
)
def of_itself(lab):
    memory = memoryview(bytearray(8))
    offered = lab.owner.create_readable_blocking(nc.Descriptor(memory[:6]))
    lab.mover.begin_read_blocking(offered.metadata(), nc.Descriptor(memory[2:]))


@provokes("RegistrationError: NIXL refused to register …")
def unreachable(lab):
    if cuda.is_available():
        pytest.skip("UCX may reach the GPU that is here")
    device = nc.SerializedDescriptor(device="cuda:0", ptr=4096, size=16).to_descriptor()
    lab.owner.create_readable_blocking(device)


@provokes("RegistrationError: … is registered with connection …, not with …")
def registered_elsewhere(lab):
    descriptor = nc.Descriptor(bytearray(8))
    descriptor.register_memory(lab.owner)
    descriptor.register_memory(lab.mover)


@provokes(
    "QuarantineError: … bytes of abandoned operations are in quarantine; max_quarantine_bytes is …"
)
def quarantined(lab):
    connector = lab.make(max_quarantine_bytes=1)
    abandoned = lab.readable(connector=connector)
    abandoned.metadata()
    abandoned.cancel()
    lab.readable(connector=connector)


@provokes("PoolExhaustedError: no block of … bytes came back within … s: …")
def no_block(lab):
    with nc.HostPool(lab.owner, max_bytes=4096, slab_bytes=4096) as pool:
        lease = pool.acquire_blocking(4096)
        with lease:
            pool.acquire_blocking(4096, timeout=0.01)


@provokes("PoolMemoryError: the system has no … bytes for the pool: …")
def no_memory(lab):
    with nc.HostPool(lab.owner, max_bytes=1 << 50) as pool:
        pool.acquire_blocking(1 << 50)


@provokes("BufferError: Existing exports of data: object cannot be re-sized")
def resized(lab):
    data = bytearray(8)
    descriptor = nc.Descriptor(data)
    data.extend(b"more")
    del descriptor


# --- metadata -----------------------------------------------------------------------------------


@provokes("ArgumentTypeError: remote_metadata must be RdmaMetadata, not …")
def a_dict(lab):
    lab.read(lab.readable().metadata().model_dump())


@provokes("PairingError: … needs the metadata of a … operation, but this is of …")
def wrong_pair(lab):
    writable = lab.owner.create_writable_blocking(nc.Descriptor(bytearray(3)))
    lab.read(writable.metadata())


@provokes("PairingError: … needs the metadata of a … operation, but this is of …")
def no_kind(lab):
    lab.read(nc.RdmaMetadata.model_validate_json("{}"))


@provokes("MetadataError: remote_metadata has no descriptors")
def no_descriptors(lab):
    lab.altered(descriptors=[])


@provokes(
    "StateError: this metadata has been used: an operation serves one transfer, "
    "so ask the peer for a new one"
)
def used(lab):
    readable = lab.readable()
    lab.read(readable.metadata()).wait_for_completion_blocking(DEADLINE)
    lab.read(readable.metadata())


@provokes("MetadataError: RdmaMetadata: …")
def an_error_page(lab):
    nc.RdmaMetadata.model_validate_json("<html>")


@provokes("MetadataError: nixl_metadata …")
def cut_short(lab):
    lab.altered(nixl_metadata=lab.readable().metadata().nixl_metadata[:40])


@provokes("MetadataError: nixl_metadata …")
def over_the_limit(lab):
    lab.read(lab.readable().metadata(), connector=lab.make(max_metadata_bytes=10))


@provokes("MetadataError: the descriptors name memory that peer … did not register")
def other_memory(lab):
    lab.altered(descriptors=[{"device": "cpu", "ptr": 4096, "size": 3}])


@provokes("MetadataError: another agent has the name of this one, …; names must be unique")
def one_name(lab):
    owner, mover = lab.make("same"), lab.make("same")
    lab.read(lab.readable(connector=owner).metadata(), connector=mover)


@provokes("AuthenticationError: the metadata is not sealed, and this connector has keys")
def not_sealed(lab):
    lab.read(lab.readable().metadata(), connector=lab.make(keys=b"0123456789abcdef"))


@provokes("AuthenticationError: the metadata's seal is wrong: another key, or altered")
def another_key(lab):
    owner, mover = lab.make(keys=b"0123456789abcdef"), lab.make(keys=b"fedcba9876543210")
    lab.read(lab.readable(connector=owner).metadata(), connector=mover)


@provokes(
    "AuthenticationError: the metadata's seal expired … s ago; clocks of machines should agree"
)
def expired(lab):
    owner = lab.make(keys=b"0123456789abcdef", seal_lifetime=0)
    made = time.time()
    readable = lab.readable(connector=owner)
    until(lambda: time.time() > made + 1)  # expiry is in whole seconds
    lab.read(readable.metadata(), connector=owner)


# --- transfers ----------------------------------------------------------------------------------


@provokes("PeerLostError: peer … cannot be connected, or NIXL refused its metadata (NIXL: …)")
def a_peer_that_is_gone(lab):
    peer = lab.start_peer()
    made = peer.do("passive", kind="readable", sizes=[3])
    peer.kill()
    lab.read(nc.RdmaMetadata.model_validate(made["metadata"]))


@provokes(
    "PeerLostError: … failed: the connection to the peer broke, or could not be made: its process "
    "ended, it withdrew the memory, or its host cannot be reached (UCX_NET_DEVICES names the "
    "interfaces to use) (NIXL: …)"
)
def a_peer_that_goes(lab):
    peer = lab.start_peer()
    made = peer.do("passive", kind="readable", sizes=[3])["metadata"]
    lab.read(nc.RdmaMetadata.model_validate(made)).wait_for_completion_blocking(DEADLINE)
    peer.kill()
    # Nothing is to be loaded, and the connection is not quiet: the transfer itself finds out.
    for known in lab.mover._open()._engine.peers.known():
        known.last_used += 3600
    again = nc.RdmaMetadata.model_validate(made | {"notification_key": "another"})
    lab.read(again).wait_for_completion_blocking(DEADLINE)


@provokes("ArgumentError: local_descriptors[…] names memory that is …: … bytes from …")
def an_address_of_nothing(lab):
    lab.readable((8, 100))


@provokes("TransferTimeoutError: … did not end before its deadline of … s")
def nobody_comes(lab):
    lab.readable(timeout=0.01).wait_for_completion_blocking(DEADLINE)


@provokes("TransferTimeoutError: not done within … s")
def slow_to_begin(lab):
    with held_up(lab.owner):
        asyncio.run(lab.owner.create_readable(nc.Descriptor(b"abc"), timeout=0.01))


@provokes("WaitTimeoutError: … did not end within … s")
def a_late_wait(lab):
    lab.readable().wait_for_completion_blocking(0.01)


@provokes("OperationCancelledError: … was cancelled")
def cancelled(lab):
    with lab.readable() as readable:
        pass
    readable.wait_for_completion_blocking(DEADLINE)


@provokes("OperationCancelledError: … was cancelled by the peer")
def cancelled_by_the_peer(lab):
    readable = lab.readable(bytes(LARGE))
    lab.read(readable.metadata(), LARGE).cancel()
    readable.wait_for_completion_blocking(DEADLINE)


@provokes("OperationCancelledError: … was cancelled: the connector closed")
def closed_meanwhile(lab):
    readable = lab.readable()
    lab.owner.close_blocking()
    readable.wait_for_completion_blocking(DEADLINE)


@provokes("TransferError: … failed: the peer reports that its transfer failed")
def failed_at_the_peer(lab):
    readable = lab.readable(bytes(LARGE))
    read = lab.read(readable.metadata(), LARGE, timeout=1e-4)
    assert read.remote  # kept: who drops it cancels it
    readable.wait_for_completion_blocking(DEADLINE)


@provokes("StateError: … has ended, so there is no metadata to hand out")
def late_metadata(lab):
    readable = lab.readable()
    readable.cancel()
    readable.metadata()


@provokes("StateError: … is not complete, so it has no results")
def early_results(lab):
    read = lab.read(lab.readable(bytes(LARGE)).metadata(), LARGE)
    read.cancel()
    read.results()


@provokes("StateError: … has been released; make a new operation")
def entered_again(lab):
    readable = lab.readable()
    for _ in range(2):
        with readable:
            pass


@provokes("StateError: …: one thing at a time, and a transfer is going on")
def two_at_a_time(lab):
    async def main():
        readable = await lab.owner.create_readable(nc.Descriptor(bytes(LARGE)))
        target = nc.Descriptor(bytearray(LARGE))
        prepared = await lab.mover.prepare_read(readable.metadata(), target)
        both = await asyncio.gather(
            prepared.transfer(), prepared.transfer(), return_exceptions=True
        )
        raise next(error for error in both if error is not None)

    asyncio.run(main())


@provokes("StateError: … is closed; prepare anew")
def prepared_and_closed(lab):
    target = nc.Descriptor(bytearray(3))
    prepared = lab.mover.prepare_read_blocking(lab.readable().metadata(), target)
    prepared.close()
    prepared.transfer_blocking()


@provokes("ClosedError: … is closed")
def closed(lab):
    lab.owner.close_blocking()
    lab.readable()


@provokes("ClosedError: … is closed")
def a_pool_that_is_closed(lab):
    pool = nc.HostPool(lab.owner)
    pool.close()
    pool.acquire_blocking(1)


@provokes("ClosedError: the lease has been released")
def released(lab):
    with nc.HostPool(lab.owner) as pool:
        with pool.acquire_blocking(1) as lease:
            pass
        lease.descriptor  # noqa: B018, asking is what fails


# --- programs -----------------------------------------------------------------------------------


@provokes("AttributeError: 'coroutine' object has no attribute …")
def no_await(lab):
    readable = lab.owner.create_readable(nc.Descriptor(b"abc"))
    with contextlib.closing(readable):
        readable.metadata()


@provokes("TypeError: 'coroutine' object does not support the …")
def no_await_in_a_block(lab):
    if sys.version_info < (3, 11):
        pytest.skip("says AttributeError")

    async def main():
        readable = lab.owner.create_readable(nc.Descriptor(b"abc"))
        with contextlib.closing(readable):
            async with readable:
                pass

    asyncio.run(main())


# --- GPUs ---------------------------------------------------------------------------------------


@provokes("LibraryError: … takes cuda-python and a GPU; …")
def no_gpu(lab):
    if cuda.is_available():
        pytest.skip("there is one")
    nc.Descriptor(b"abc", stream=1)

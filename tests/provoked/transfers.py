"""Transfers that fail, and operations that are used wrongly."""

import asyncio

from calls import held_up
from processes import DEADLINE

import nixl_connect as nc
from provoked.lab import provokes

LARGE = 64 << 20


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


@provokes("PeerLostError: … failed: who was moving its bytes, process or connector, has ended")
def a_mover_that_goes(lab):
    peer = lab.start_peer()
    operation = lab.readable()
    peer.do("prepare", metadata=operation.metadata().model_dump(), size=3)
    peer.do("transfer")
    peer.kill()
    operation.wait_for_completion_blocking(DEADLINE)


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

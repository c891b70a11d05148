"""Large transfers between two processes, every byte compared, while the event loop goes on."""

import asyncio

import numpy as np
import pytest

import nixl_connect as nc


@pytest.mark.timeout(180)
@pytest.mark.parametrize("transport", ["shared memory", "tcp"])
def test_a_256_mib_read_arrives_intact(connector, start_peer, digest, transport):
    size = 256 << 20
    peer = start_peer(environment={} if transport == "shared memory" else {"UCX_TLS": "tcp"})
    made = peer.do("passive", kind="readable", sizes=[size], seed=1, deadline=60)
    told = nc.RdmaMetadata.model_validate(made["metadata"])
    array = np.zeros(size, np.uint8)

    async def main():
        ticks = 0
        operation = await connector.begin_read(told, nc.Descriptor(array))
        waiting = asyncio.create_task(operation.wait_for_completion(60))
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0.001)
        await waiting
        return ticks

    ticks = asyncio.run(main())
    assert ticks > 1  # the copy ran on another thread than the loop's
    peer.do("wait", number=made["id"])
    expected = peer.do("digests", number=made["id"], deadline=60)["digests"]
    assert [digest(array)] == expected


@pytest.mark.timeout(240)
def test_a_gibibyte_written_in_two_pieces(connector, start_peer, content, digest):
    sizes = [(1 << 30) - 1, 1]
    peer = start_peer()
    made = peer.do("passive", kind="writable", sizes=sizes, deadline=60)
    arrays = [content(i, size) for i, size in enumerate(sizes)]
    with connector.begin_write_blocking(
        [nc.Descriptor(array) for array in arrays], nc.RdmaMetadata.model_validate(made["metadata"])
    ) as operation:
        operation.wait_for_completion_blocking(60)
    peer.do("wait", number=made["id"])
    expected = peer.do("digests", number=made["id"], deadline=60)["digests"]
    assert [digest(array) for array in arrays] == expected

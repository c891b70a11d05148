"""Every operation between two processes, in both directions, with every byte compared."""

import pytest

import nixl_connect as nc

SIZES = [[1], [7], [4096], [1 << 20], [3, 1, 100_000], [1 << 16] * 17]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["read", "write"])
def test_active_side_here(connector, peer, content, digest, kind, sizes):
    made = peer.do(
        "passive", kind="readable" if kind == "read" else "writable", sizes=sizes, seed=5
    )
    metadata = nc.RdmaMetadata.model_validate(made["metadata"])
    arrays = [content(5 + i, size) for i, size in enumerate(sizes)]
    expected = [digest(array) for array in arrays]
    if kind == "read":
        for array in arrays:
            array[:] = 0
        with connector.begin_read_blocking(metadata, [nc.Descriptor(a) for a in arrays]) as op:
            op.wait_for_completion_blocking(10)
            assert [item.ptr for item in op.results()] == [a.ctypes.data for a in arrays]
        peer.do("wait", number=made["id"])
        assert [digest(array) for array in arrays] == expected
    else:
        with connector.begin_write_blocking([nc.Descriptor(a) for a in arrays], metadata) as op:
            op.wait_for_completion_blocking(10)
        peer.do("wait", number=made["id"])
        assert peer.do("digests", number=made["id"])["digests"] == expected
    assert op.status is nc.OperationStatus.COMPLETE

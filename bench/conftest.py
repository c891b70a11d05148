"""Two connectors of this process, warm, for the benchmarks."""

from collections.abc import Iterator

import pytest

import nixl_connect as nc


@pytest.fixture(scope="session")
def connectors() -> Iterator[tuple[nc.Connector, nc.Connector]]:
    """Return an owner and a mover whose connection is made."""
    source, target = nc.Descriptor(b"warm"), nc.Descriptor(bytearray(4))
    with nc.Connector() as owner, nc.Connector() as mover:
        readable = owner.create_readable_blocking(source)
        read = mover.begin_read_blocking(readable.metadata(), target)
        read.wait_for_completion_blocking(10)
        readable.wait_for_completion_blocking(10)
        yield owner, mover

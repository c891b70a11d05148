"""Pools of connectors that are closed after the test."""

import pytest

import nixl_connect as nc

MIB = 1 << 20


@pytest.fixture
def make_pool(make_connector):
    pools = []

    def make(connector=None, **options):
        options = {"max_bytes": 8 * MIB, "slab_bytes": MIB} | options
        pools.append(nc.HostPool(connector or make_connector(quarantine=0), **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()

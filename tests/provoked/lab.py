"""What errors are provoked with, and which function provokes which."""

import numpy as np
import pytest

import nixl_connect as nc


def provokes(heading):
    """Mark a function that raises what a heading says."""

    def note(case):
        case.heading = heading
        return case

    return note


def cases(module):
    """Return what a module has of such functions, as parameters: the heading and the function."""
    return [
        pytest.param(case.heading, case, id=name)
        for name, case in vars(module).items()
        if hasattr(case, "heading")
    ]


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

"""Moving bytes from one engine's buffer to another's."""

import nixl_connect as nc

DEADLINE = 20


def moved(source, target):
    """Move the bytes of one object to another, between two connectors of this process."""
    with nc.Connector() as owner, nc.Connector() as mover:
        readable = owner.create_readable_blocking(nc.Descriptor(source))
        read = mover.begin_read_blocking(readable.metadata(), nc.Descriptor(target))
        read.wait_for_completion_blocking(DEADLINE)
        readable.wait_for_completion_blocking(DEADLINE)

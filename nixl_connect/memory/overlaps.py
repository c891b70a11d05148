"""Refuses memory that overlaps where it is written: nobody knows what would end up there."""

from __future__ import annotations

from nixl_connect._native.overlaps import between, within
from nixl_connect._native.packing import Regions
from nixl_connect.errors import ArgumentError


def refuse_within(name: str, targets: Regions) -> None:
    """Raise ArgumentError if two of an operation's destinations have bytes in common."""
    found = within(targets) if len(targets) > 1 else None
    if found is not None:
        i, j = sorted(found)
        raise ArgumentError(
            f"{name}[{i}] and [{j}] overlap, so what would arrive there is undefined"
        )


def refuse_between(local: Regions, remote: Regions, *, is_read: bool) -> None:
    """Raise ArgumentError if a source and a destination have bytes in common, but are not the same.

    Parameters
    ----------
    local, remote : Regions
        Both of this process, and of one kind of memory. The destinations have been looked at by
        `refuse_within`.
    is_read : bool
        Whether `local` are the destinations.
    """
    found = between(remote, local) if is_read else between(local, remote)
    if found is not None:
        i, j = reversed(found) if is_read else found
        raise ArgumentError(
            f"local_descriptors[{i}] overlaps remote_metadata.descriptors[{j}], memory of this "
            "process too; only the very same memory may be both source and destination"
        )

"""What NIXL has loaded of a peer over one connection, and what of new metadata it lacks.

Some keys of UCX say which memory they are for; those of network devices do. Others hold nothing of
it: between processes of one host, and over TCP, every key of a peer's host memory is the same. Such
a key is loaded once, for a region that holds all addresses. So nothing is loaded for memory that
comes later, however much there is of it. That a transfer keeps to what its metadata names is
checked before it gets here (`envelope.names`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from enum import Enum

from nixl_connect._native.envelope import Section
from nixl_connect._native.named import keys_of
from nixl_connect._native.ranges import RangeMap, Spans

# So much of a key says how it is read: which memory domains it has parts for, and the kind of
# memory. Each part follows, after a byte that says how long it is. See `ucp_rkey_pack_memh` of UCX.
_DOMAINS = 8
_HEAD = 9
# NIXL's memory type of host memory.
_HOST = 0
Region = tuple[int, int, int, bytes]
# A region that holds all addresses.
_EVERYTHING = (0, (1 << 64) - 1)


class Verdict(Enum):
    """What a connection is to metadata."""

    KNOWN = 0
    """All of it is loaded."""
    NEW = 1
    """It can be loaded, too."""
    FULL = 2
    """It would be too much."""
    CONFLICT = 3
    """NIXL might take something older for it, or refuse it."""


class _Table:
    """What is loaded of one device's memory, by one backend."""

    __slots__ = ("everywhere", "exact", "spans")

    def __init__(self) -> None:
        self.everywhere: bytes | None = None
        """The key of a region that holds all addresses."""
        self.exact: RangeMap = RangeMap()
        """The keys of all other regions."""
        self.spans: Spans = Spans()
        """The same, as far as the regions reach together."""


class Ledger:
    """What is loaded of a peer over one connection."""

    def __init__(self) -> None:
        self.regions: int = 0
        self._tables: dict[tuple[str, int, int], _Table] = {}
        # What keys look like that NIXL has accepted: where it refuses one of a peer's keys, it
        # frees them all, in use or not.
        self._shapes: set[tuple[str, int, int, bytes]] = set()

    @property
    def everywhere(self) -> dict[tuple[str, int, int], bytes]:
        """The keys that are for all memory, by backend, memory type and device."""
        found = ((at, table.everywhere) for at, table in self._tables.items())
        return {at: key for at, key in found if key is not None}

    def trust(self, other: Ledger) -> None:
        """Accept what keys look like that were accepted over another connection to the peer."""
        self._shapes |= other._shapes

    def compare(self, sections: Iterable[Section], limit: int) -> tuple[Verdict, list[Section]]:
        """Compare what metadata names with what is loaded.

        Parameters
        ----------
        sections : iterable of Section
            Of the metadata.
        limit : int
            Most regions to load over one connection, but for those of the first metadata.

        Returns
        -------
        verdict : Verdict
        missing : list of Section
            What to load. Empty unless the verdict is NEW.
        """
        missing: list[Section] = []
        for section in sections:
            fresh = self._missing(section)
            if fresh is None:
                return Verdict.CONFLICT, []
            if fresh:
                missing.append(section._replace(regions=fresh))
        count = sum(len(section.regions) for section in missing)
        if self.regions and count and self.regions + count > limit:
            return Verdict.FULL, []
        return (Verdict.NEW if missing else Verdict.KNOWN), missing

    def _missing(self, section: Section) -> list[Region] | None:
        """Return which regions of a section have to be loaded; None where they conflict."""
        fresh: list[Region] = []
        rest: set[int] = set()  # the devices whose regions count one by one
        for device, keys in keys_of(section.regions).items():
            table = self._tables.get((section.backend, section.mem_type, device))
            if table is not None and table.everywhere is not None:
                if keys != {table.everywhere}:
                    return None
                continue
            if self.regions and not all(_shape(section, key) in self._shapes for key in keys):
                return None
            key = next(iter(keys))
            if table is None and section.mem_type == _HOST and len(keys) == 1 and names_none(key):
                fresh.append((*_EVERYTHING, device, key))
            else:
                rest.add(device)
        if not rest:
            return fresh
        tables = {d: self._tables.get((section.backend, section.mem_type, d)) for d in rest}
        for region in section.regions:
            start, length, device, key = region
            if device not in rest:
                continue
            table = tables[device]
            if table is not None:
                if table.exact.get(start, start + length) == key:
                    continue
                if not table.spans.admits(start, start + length, key):
                    return None
            fresh.append(region)
        return fresh

    def note(self, sections: Iterable[Section]) -> None:
        """Note what `compare` returned, once it has been loaded."""
        for section in sections:
            for start, length, device, key in section.regions:
                self._shapes.add(_shape(section, key))
                at = section.backend, section.mem_type, device
                table = self._tables.get(at)
                if table is None:
                    table = self._tables[at] = _Table()
                if (start, length) == _EVERYTHING:
                    table.everywhere = key
                    self.regions += 1
                elif table.exact.get(start, start + length) is None:
                    table.exact.add(start, start + length, key)
                    table.spans.add(start, start + length, key)
                    self.regions += 1


@functools.lru_cache(maxsize=256)
def names_none(key: bytes) -> bool:
    """Whether a key of UCX has nothing in it that depends on the memory: each part is empty."""
    parts = int.from_bytes(key[:_DOMAINS], "little").bit_count()
    sizes = key[_HEAD : _HEAD + parts]
    return len(key) >= _HEAD + parts and not any(sizes)


def _shape(section: Section, key: bytes) -> tuple[str, int, int, bytes]:
    return section.backend, section.mem_type, len(key), key[:_HEAD]

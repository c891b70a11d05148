"""Arrays of a peer's offer, fetched."""

from __future__ import annotations

import math
import mmap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nixl_connect.arrays.dtypes import decoded
from nixl_connect.arrays.given import Arrays, collected, is_sequence, refuse_written
from nixl_connect.arrays.manifest import Entry, structure
from nixl_connect.arrays.moving import MOST_ARRAYS, Moving, Names
from nixl_connect.checks import count, instance
from nixl_connect.connector import Connector
from nixl_connect.engine.options import memory_of_machine
from nixl_connect.errors import ArgumentError, LibraryError, MetadataError
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.memory.device import HOST, Device, DeviceKind
from nixl_connect.pool.pool import HostPool
from nixl_connect.status import OperationKind

if TYPE_CHECKING:
    from nixl_connect.pool.lease import Lease

_LINE = 64
"""Bytes, of a cache line: each piece of new memory begins at one, or `_Piece.lead` behind it."""
_PAGE = mmap.PAGESIZE
_LARGE = 1 << 16
_ALIGNED = 16
"""Bytes: no type of items asks for more."""


class _Piece(NamedTuple):
    """Bytes of the peer's that lie side by side, and are moved as one."""

    region: int
    start: int
    size: int
    members: list[int]
    """The arrays in it, by their positions among those that are moved."""

    lead: int
    """Bytes from the last border of `_ALIGNED` bytes, at the peer."""


class Fetching(Moving):
    """A fetch: `lay` says where its arrays come, `result` makes them."""

    def __init__(
        self,
        connector: Connector,
        message: Any,
        *,
        into: Any,
        pool: Any,
        device: Any,
        only: Any,
        max_bytes: int | None,
        max_arrays: int = MOST_ARRAYS,
    ) -> None:
        super().__init__(connector, message, OperationKind.READ, only, max_arrays)
        most = memory_of_machine() // 2 if max_bytes is None else count("max_bytes", max_bytes)
        self._device = HOST if device is None else _device(device)
        if pool is not None:
            instance("pool", pool, HostPool)
        if (into is not None) + (pool is not None) + (device is not None) > 1:
            raise ArgumentError("into, pool and device exclude each other")
        self._arrays: list[Any] = [None] * len(self.picked)
        self._pieces: list[_Piece] = []
        self._places: list[int] = []
        """Where each piece is in a lease."""
        self._rooms: list[tuple[_Piece, Any, int]] = []
        """Pieces whose arrays are not made yet: their memory, and where they are in it."""
        self.leased: int = 0
        """Bytes of the pool that it takes."""
        if into is not None:
            self._fill(into)
            return
        self._pieces = self._joined()
        total = sum(piece.size for piece in self._pieces)
        if total > most:
            raise MetadataError(f"arrays: {total} bytes to fetch, more than max_bytes: {most}")
        if pool is not None:
            self._places, self.leased = self._packed(paged=True)
            # A lease is a power of two, which a few bytes more may double.
            if (self.leased - 1).bit_length() > (total - 1).bit_length():
                places, least = self._packed(paged=False)
                if (self.leased - 1).bit_length() > (least - 1).bit_length():
                    self._places, self.leased = places, least

    def _fill(self, into: Any) -> None:
        given = collected(into, "into")
        refuse_written(given, "into")
        ordered = self.matched(given, "into", sequence=is_sequence(into))
        self._arrays = [it.array for it in ordered]
        self.place(ordered, "into")

    def _joined(self) -> list[_Piece]:
        """Return the bytes to move: what lies side by side at the peer is moved as one."""
        held = []
        for i, entry in enumerate(self.picked):
            # Raises before anything is moved, if there is no such type here.
            size = math.prod(entry.shape) * decoded(entry.type).itemsize
            if size:
                held.append((entry.region, entry.offset, entry.offset + size, i))
            else:
                self._arrays[i] = self._without_bytes(entry)
        held.sort()
        pieces: list[_Piece] = []
        rows = self._read.rows
        first = 0
        while first < len(held):
            region, start, end, i = held[first]
            members = [i]
            first += 1
            while first < len(held) and held[first][0] == region and held[first][1] <= end:
                end = max(end, held[first][2])
                members.append(held[first][3])
                first += 1
            # New memory suits any single array; several have to lie as they did.
            lead = (rows[region][0] + start) % _ALIGNED if len(members) > 1 else 0
            pieces.append(_Piece(region, start, end - start, members, lead))
        return pieces

    def _packed(self, *, paged: bool) -> tuple[list[int], int]:
        """Return where in a lease, which begins at a page, each piece goes, and where they end.

        With `paged`, large ones are as far from the last page's border as at the peer: the kernel,
        which copies page by page within a host, then copies each page at once.
        """
        places, end = [], 0
        for piece in self._pieces:
            lead, step = piece.lead, _LINE
            if paged and piece.size >= _LARGE:
                lead = (self._read.rows[piece.region][0] + piece.start) % _PAGE
                step = _PAGE
            place = -(-end // step) * step + lead
            places.append(place)
            end = place + piece.size
        return places, end

    def patience(self, timeout: float | None) -> float:
        """Return for how many seconds to wait for a lease."""
        return self._connector._options.timeout if timeout is None else timeout

    def lay(self, lease: Lease | None) -> None:
        """Take the memory: of the pool, if there is a lease of it."""
        view = None if lease is None else lease.view
        for i, piece in enumerate(self._pieces):
            if lease is not None:
                place = self._places[i]
                self.descriptors.append(lease.descriptor.slice(place, piece.size))
                self._rooms.append((piece, view, place))
            elif self._device.kind is DeviceKind.CUDA:
                self._on_device(piece)
            elif len(piece.members) == 1:
                self._arrays[piece.members[0]] = array = _empty(self.picked[piece.members[0]])
                self.descriptors.append(Descriptor(array))
            else:
                room = _room(piece.size, piece.lead)
                self.descriptors.append(Descriptor(room))
                self._rooms.append((piece, room, 0))
        if not self.descriptors:
            self.nothing()
        elif self._pieces:
            self._cut([(piece.region, piece.start, piece.size) for piece in self._pieces])

    def _on_device(self, piece: _Piece) -> None:
        cupy = _cupy()
        with cupy.cuda.Device(self._device.id):
            room = cupy.empty(piece.size + _LINE, np.uint8)
            lead = (piece.lead - room.data.ptr) % _LINE
            self.descriptors.append(Descriptor(room[lead : lead + piece.size]))
            for i in piece.members:
                entry = self.picked[i]
                self._arrays[i] = cupy.ndarray(
                    tuple(entry.shape),
                    decoded(entry.type),
                    memptr=room.data + lead + entry.offset - piece.start,
                    order=entry.order,
                )

    def _without_bytes(self, entry: Entry) -> Any:
        if self._device.kind is not DeviceKind.CUDA:
            return _empty(entry)
        cupy = _cupy()
        with cupy.cuda.Device(self._device.id):
            return cupy.empty(tuple(entry.shape), decoded(entry.type), order=entry.order)

    def result(self) -> Any:
        """Return the arrays, structured as the peer gave them.

        May be called once the transfer has begun: hundreds take a while, in which bytes move.
        """
        for piece, room, place in self._rooms:
            for i in piece.members:
                entry = self.picked[i]
                self._arrays[i] = np.ndarray(
                    tuple(entry.shape),
                    decoded(entry.type),
                    buffer=room,
                    offset=place + entry.offset - piece.start,
                    order="F" if entry.order == "F" else "C",
                )
        return structure(self.picked, self._arrays, sequence=self._read.sequence)


def _device(device: Any) -> Device:
    made = device if isinstance(device, Device) else Device(device)
    if made.kind not in (DeviceKind.HOST, DeviceKind.CUDA):
        raise ArgumentError(f"device: arrays are made on cpu or cuda, not on {made}")
    if made.kind is DeviceKind.CUDA:
        _cupy()
    return made


def _cupy() -> Any:
    try:
        import cupy
    except ImportError:
        raise LibraryError(
            "making arrays on a CUDA device needs CuPy; without it, use into="
        ) from None
    return cupy


def _empty(entry: Entry) -> np.ndarray[Any, Any]:
    return np.empty(
        tuple(entry.shape), decoded(entry.type), order="F" if entry.order == "F" else "C"
    )


def _room(size: int, lead: int) -> np.ndarray[Any, Any]:
    """Return new memory that begins so many bytes from a border of a cache line."""
    whole = np.empty(size + _LINE, np.uint8)
    start = (lead - whole.ctypes.data) % _LINE
    return whole[start : start + size]


async def fetch(
    connector: Connector,
    message: str | bytes,
    *,
    into: Arrays | None = None,
    pool: HostPool | None = None,
    device: Device | str | None = None,
    only: Names | None = None,
    timeout: float | None = None,
    max_bytes: int | None = None,
    max_arrays: int = MOST_ARRAYS,
) -> Any:
    """Fetch arrays that a peer offers, by one operation.

    Parameters
    ----------
    connector : Connector
        Connector to use.
    message : str or bytes
        The offer's message, in either form. It is not trusted.
    into : mapping or sequence, optional
        Writable arrays to fill, of the same names, shapes and types, on any device. By default new
        NumPy arrays are returned; those that lie side by side at the peer are views of one.
    pool : HostPool, optional
        Pool to take the memory from, as one lease, which ends when no array refers to it any more.
        A second fetch then registers nothing.
    device : Device or str, optional
        ``"cuda"``, which is ``"cuda:0"``, or ``"cuda:<number>"`` to return CuPy's arrays there.
    only : str, int or iterable of these, optional
        Names of arrays, or of mappings with all that is in them, joined by dots; numbers for a
        sequence. Nothing else is moved. A sequence comes back in this order.
    timeout : float, optional
        Seconds after which the fetch fails; by default the connector's `timeout`. A pool may take
        as long before.
    max_bytes : int, optional
        Bytes to allocate at most; by default half of the machine's memory.
    max_arrays : int
        How many arrays the message may have.

    Returns
    -------
    dict or list
        The arrays as they were offered, with their shapes, types, orders and names.

    Raises
    ------
    MetadataError
        The message is malformed or exceeds a limit. Also a ValueError.
    AuthenticationError
        The connector has keys, and a seal is missing or wrong. Also a PermissionError.
    PairingError
        The message is of `expect`. Also a RuntimeError and a ValueError.
    ArgumentTypeError
        An argument is of the wrong type. Also a TypeError.
    ArgumentError
        `only` or `into` do not match the message, or `into` cannot be filled; nothing has been
        moved. Also a ValueError.
    LibraryError
        A type needs ml_dtypes, or `device` CuPy, which is missing. Also an ImportError.
    PoolExhaustedError, PoolMemoryError
        As for `HostPool.acquire`.
    PeerLostError, TransferTimeoutError, TransferError, OperationCancelledError
        As for `AbstractOperation.wait_for_completion`.
    """
    plan = Fetching(
        connector,
        message,
        into=into,
        pool=pool,
        device=device,
        only=only,
        max_bytes=max_bytes,
        max_arrays=max_arrays,
    )
    if pool is not None and plan.leased:
        with await pool.acquire(plan.leased, plan.patience(timeout)) as lease:
            plan.lay(lease)
    else:
        plan.lay(None)
    operation = await connector.begin_read(
        plan.metadata, plan.descriptors, timeout=timeout, parts=plan.parts
    )
    with operation:
        arrays = plan.result()
        await operation.wait_for_completion()
    return arrays


def fetch_blocking(
    connector: Connector,
    message: str | bytes,
    *,
    into: Arrays | None = None,
    pool: HostPool | None = None,
    device: Device | str | None = None,
    only: Names | None = None,
    timeout: float | None = None,
    max_bytes: int | None = None,
    max_arrays: int = MOST_ARRAYS,
) -> Any:
    """Fetch arrays that a peer offers: the blocking form of `fetch`."""
    plan = Fetching(
        connector,
        message,
        into=into,
        pool=pool,
        device=device,
        only=only,
        max_bytes=max_bytes,
        max_arrays=max_arrays,
    )
    if pool is not None and plan.leased:
        with pool.acquire_blocking(plan.leased, plan.patience(timeout)) as lease:
            plan.lay(lease)
    else:
        plan.lay(None)
    operation = connector.begin_read_blocking(
        plan.metadata, plan.descriptors, timeout=timeout, parts=plan.parts
    )
    with operation:
        arrays = plan.result()
        operation.wait_for_completion_blocking()
    return arrays

"""What is registered with one agent: shared, counted, released by the last who needs it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nixl_connect._native.agent import Agent, AgentClosedError, AgentForkedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.packing import Regions
from nixl_connect.device import Device
from nixl_connect.errors import RegistrationError
from nixl_connect.permit import NotQuickError, Permit
from nixl_connect.ranges import RangeMap

logger = logging.getLogger(__name__)


class Registration:
    """One region that is registered with NIXL, and how many need it."""

    __slots__ = ("device", "end", "holders", "start")

    def __init__(self, start: int, end: int, device: Device) -> None:
        self.start = start
        self.end = end
        self.device = device
        self.holders = 1

    @property
    def row(self) -> tuple[int, int, int]:
        """Address, length and device, exactly as registered."""
        return self.start, self.end - self.start, self.device.id

    def regions(self) -> Regions:
        """Return the region as NIXL takes it."""
        return Regions([self.row])


class Registrations:
    """The registrations of one agent. Safe to call from any thread.

    Two locks. `lock` is held while NIXL registers, deregisters, or builds a request that will refer
    to registrations, so that none of these sees another half done; NIXL serialises them anyway.
    `_maps_lock` guards the maps alone and is never held across a call into NIXL. Both are
    reentrant, since the garbage collector may run a finalizer, and with it anything, in any thread
    that holds them; but what would change them then waits (see `Keeper.collect`).
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._maps: dict[Device, RangeMap[Registration]] = {}
        self._maps_lock = threading.RLock()
        self.lock = threading.RLock()
        self.registered_bytes = 0

    def __len__(self) -> int:
        with self._maps_lock:
            return sum(map(len, self._maps.values()))

    @property
    def is_busy(self) -> bool:
        """Whether a call that needs `lock` would have to wait for another thread."""
        free = self.lock.acquire(blocking=False)
        if free:
            self.lock.release()
        return not free

    @contextmanager
    def entered(self, permit: Permit) -> Iterator[None]:
        """Hold `lock`; raise NotQuickError where that would take patience and there is none."""
        if not self.lock.acquire(blocking=permit.patient):
            raise NotQuickError
        try:
            yield
        finally:
            self.lock.release()

    @property
    def is_held_here(self) -> bool:
        """Whether this thread is in the middle of something here."""
        owned = self.lock._is_owned() or self._maps_lock._is_owned()  # type: ignore[attr-defined]
        return bool(owned)

    def covers(self, start: int, size: int, device: Device) -> bool:
        """Whether a registration holds this region now."""
        return bool(self._covering(start, size, device))

    def acquire(self, rows: Sequence[tuple[int, int, Device]]) -> list[Registration]:
        """Return registrations that hold these regions, made where there are none. Release them.

        An existing registration is shared where NIXL would find it. It looks no further than at the
        neighbours of a region in its list, and so may overlook one that covers it; then the region
        gets a registration of its own, which NIXL does find.

        Parameters
        ----------
        rows : sequence of (int, int, Device)
            Address, size and device of each.

        Raises
        ------
        RegistrationError
            NIXL refuses the memory; then none is acquired.
        """
        acquired: list[Registration] = []
        with self.lock:
            try:
                for row in rows:
                    acquired.append(self._acquire(*row))  # noqa: PERF401, for the except below
                # What was registered for a later row may hide what an earlier one shares.
                while hidden := [row for row in rows if self._found(*row) is None]:
                    for row in hidden:
                        acquired.append(self._acquire(*row))  # noqa: PERF401
            except BaseException:
                for registration in acquired:
                    self.release(registration)
                raise
        return acquired

    def acquire_covering(self, rows: Sequence[tuple[int, int, Device]]) -> list[Registration]:
        """Return every registration that holds one of these regions. Release them."""
        acquired = []
        with self._maps_lock:
            for row in rows:
                for known in self._covering(*row):
                    known.holders += 1
                    acquired.append(known)
        return acquired

    def _covering(self, start: int, size: int, device: Device) -> list[Registration]:
        with self._maps_lock:
            ranges = self._maps.get(device)
            return [] if ranges is None else list(ranges.covering(start, start + size))

    def _found(self, start: int, size: int, device: Device) -> Registration | None:
        """Return the registration that NIXL would find for a region."""
        with self._maps_lock:
            ranges = self._maps.get(device)
            return None if ranges is None else ranges.neighbour(start, start + size)

    def _acquire(self, start: int, size: int, device: Device) -> Registration:
        """Share or make one registration. `lock` held."""
        known = self._found(start, size, device)
        if known is not None:
            known.holders += 1
            return known
        fresh = Registration(start, start + size, device)
        try:
            self._agent.register(fresh.regions(), device.mem_type)
        except NativeError as error:
            raise RegistrationError(
                f"NIXL refused to register {size} bytes at {start:#x} on {device}: "
                f"{status_name(error.status)}"
            ) from None
        with self._maps_lock:
            self._maps.setdefault(device, RangeMap()).add(start, start + size, fresh)
            self.registered_bytes += size
        return fresh

    def release(self, registration: Registration) -> None:
        """Give up one `acquire`; the last one deregisters. Never raises."""
        with self.lock:
            with self._maps_lock:
                registration.holders -= 1
                if registration.holders:
                    return
                start, size, _ = registration.row
                self._maps[registration.device].remove(start, start + size)
                self.registered_bytes -= size
            try:
                self._agent.deregister(registration.regions(), registration.device.mem_type)
            except (AgentClosedError, AgentForkedError):
                pass  # closing the agent deregistered everything
            except NativeError as error:
                # Not the error itself, whose frames a log record would keep alive.
                text = str(error)
                logger.warning("NIXL keeps %d bytes at %#x registered: %s", size, start, text)

"""What is registered with one agent: shared, counted, released by the last who needs it."""

from __future__ import annotations

import logging
import threading
from typing import Any

from nixl_connect._native.agent import Agent, AgentClosedError, AgentForkedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.packing import Regions
from nixl_connect._native.ranges import RangeMap, coverings, neighbours
from nixl_connect.errors import RegistrationError
from nixl_connect.permit import NotQuickError, Permit

logger = logging.getLogger(__name__)

# Registering more than this for the first time takes long: pages are pinned one by one.
_QUICK_BYTES = 1024 * 1024
_QUICK_ROWS = 64
# How long (seconds) an event loop waits for another thread's call.
_BRIEF = 0.001

Row = tuple[int, int, int]
"""Address, length in bytes and device number of one region."""


class Registration:
    """One region that is registered with NIXL, and how many need it."""

    __slots__ = ("holders", "mem_type", "row")

    def __init__(self, row: Row, mem_type: int) -> None:
        self.row = row
        """Exactly as registered."""
        self.mem_type = mem_type
        self.holders = 0


class Registrations:
    """The registrations of one agent. Safe to call from any thread.

    Two locks. `lock` is held while NIXL registers, deregisters, or builds a request that will refer
    to registrations, so that none of these sees another half done; NIXL serialises them anyway.
    `_maps_lock` guards the maps alone and is never held across a call into NIXL. Both are
    reentrant, since the garbage collector may run a finalizer, and with it anything, in any thread
    that holds them; but what would change them then waits (see `Keeper.collect`).

    Parameters
    ----------
    agent : Agent
        Whose.
    pins : bool
        Whether it may have devices that pin pages, which takes long for many.
    """

    def __init__(self, agent: Agent, *, pins: bool = True) -> None:
        self._agent = agent
        self._pins = pins
        # By memory type and device number.
        self._maps: dict[int, dict[int, RangeMap]] = {}
        self._maps_lock = threading.RLock()
        self.lock = threading.RLock()
        # Whoever has the lock has it for long.
        self._long = False
        self.registered_bytes = 0

    def __len__(self) -> int:
        with self._maps_lock:
            return sum(len(ranges) for maps in self._maps.values() for ranges in maps.values())

    @property
    def is_busy(self) -> bool:
        """Whether a call that needs `lock` would have to wait for another thread."""
        free = self.lock.acquire(blocking=False)
        if free:
            self.lock.release()
        return not free

    def enter(self, permit: Permit) -> None:
        """Take `lock`; raise NotQuickError where that would take patience and there is none.

        Others have it for microseconds, nearly always.
        """
        if permit.patient:
            self.lock.acquire()
        elif self._long:
            raise NotQuickError
        elif not self.lock.acquire(timeout=_BRIEF):
            self._long = True  # until somebody has got it, as does whoever finds this out
            raise NotQuickError
        self._long = False

    @property
    def is_held_here(self) -> bool:
        """Whether this thread is in the middle of something here."""
        owned = self.lock._is_owned() or self._maps_lock._is_owned()  # type: ignore[attr-defined]
        return bool(owned)

    def covers(self, row: Row, mem_type: int) -> bool:
        """Whether a registration holds this region now."""
        with self._maps_lock:
            return coverings(self._maps.get(mem_type, {}), Regions([row])) is not None

    def acquire(
        self, regions: Regions, mem_type: int, *, patient: bool = True
    ) -> list[Registration]:
        """Return what holds each of these regions, made where there is nothing. Release it.

        An existing registration is shared where NIXL would find it. It looks no further than at the
        neighbours of a region in its list, and so may overlook one that covers it; then the region
        gets a registration of its own, which NIXL does find.

        Raises
        ------
        RegistrationError
            NIXL refuses the memory; then none is acquired.
        NotQuickError
            There is much to register, and no patience; then none is acquired.
        """
        made: list[Registration] = []
        with self.lock:
            try:
                # What was registered for one row may hide what another one shares.
                while None in (found := self._found(regions, mem_type)):
                    self._make(regions, found, mem_type, made, patient=patient)
                    if len(found) == 1:
                        found = made
                        break
                with self._maps_lock:
                    for known in found:
                        known.holders += 1
            except BaseException:
                for fresh in made:
                    fresh.holders += 1
                self.release(made)
                raise
        return found

    def _found(self, regions: Regions, mem_type: int) -> list[Any]:
        """Return the Registration that NIXL would find for each region, or None."""
        with self._maps_lock:
            return neighbours(self._maps.setdefault(mem_type, {}), regions)

    def _make(
        self,
        regions: Regions,
        found: list[Any],
        mem_type: int,
        made: list[Registration],
        *,
        patient: bool,
    ) -> None:
        """Register the regions for which nothing was found, yet without holders. `lock` held."""
        if len(found) == 1:
            rows, missing = [regions[0]], regions
        else:
            rows = list({regions[i]: None for i, known in enumerate(found) if known is None})
            missing = regions if len(rows) == len(found) else Regions(rows)
        large = self._pins and missing.nbytes > _QUICK_BYTES
        slow = large or len(rows) > _QUICK_ROWS
        if slow and not patient:
            raise NotQuickError
        self._long = slow
        try:
            self._agent.register(missing, mem_type)
        except NativeError as error:
            raise RegistrationError(
                f"NIXL refused to register {_text(rows, mem_type)}: {status_name(error.status)}"
            ) from None
        finally:
            self._long = False
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("registered %s", _text(rows, mem_type))
        with self._maps_lock:
            maps = self._maps[mem_type]
            for row in rows:
                start, size, device = row
                fresh = Registration(row, mem_type)
                maps.setdefault(device, RangeMap()).add(start, start + size, fresh)
                made.append(fresh)
            self.registered_bytes += missing.nbytes

    def acquire_covering(self, regions: Regions, mem_type: int) -> list[Registration]:
        """Return every registration that holds one of these regions. Release them."""
        with self._maps_lock:
            found: list[Any] = coverings(self._maps.get(mem_type, {}), regions) or []
            for known in found:
                known.holders += 1
        return found

    def release(self, registrations: list[Registration]) -> None:
        """Give up what was acquired, emptying the list; the last holder deregisters. Never raises.

        Each is taken out first: if an exception, a signal handler's say, comes between, one leaks,
        and none goes twice.
        """
        if not registrations:
            return  # without the lock, for which an event loop might have to wait
        with self.lock:
            idle: dict[int, list[Row]] = {}
            with self._maps_lock:
                while registrations:
                    known = registrations.pop()
                    known.holders -= 1
                    if known.holders == 0:
                        start, size, device = known.row
                        self._maps[known.mem_type][device].remove(start, start + size)
                        self.registered_bytes -= size
                        idle.setdefault(known.mem_type, []).append(known.row)
            for mem_type, rows in idle.items():
                self._deregister(rows, mem_type)

    def _deregister(self, rows: list[Row], mem_type: int) -> None:
        try:
            self._agent.deregister(Regions(rows), mem_type)
        except (AgentClosedError, AgentForkedError):
            pass  # closing the agent deregistered everything
        except (NativeError, MemoryError) as error:
            # Not the error itself, whose frames a log record would keep alive.
            text = str(error) or "out of memory"
            logger.warning("NIXL keeps %s registered: %s", _text(rows, mem_type), text)
        else:
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("deregistered %s", _text(rows, mem_type))


def _text(rows: list[Row], mem_type: int) -> str:
    """Name some regions in a message."""
    nbytes = sum(size for _, size, _ in rows)
    start, _, device = rows[0]
    where = f"at {start:#x}" if len(rows) == 1 else f"in {len(rows)} regions from {start:#x}"
    return f"{nbytes} bytes {where} on {'cpu' if mem_type == 0 else f'device {device}'}"

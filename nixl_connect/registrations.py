"""What is registered with one agent: shared, counted, released by the last who needs it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from nixl_connect._native.agent import Agent, AgentClosedError, AgentForkedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.lock import Gate
from nixl_connect._native.packing import Regions
from nixl_connect._native.ranges import RangeMap, coverings, give_up, neighbours, put, take
from nixl_connect.errors import RegistrationError
from nixl_connect.permit import NotQuickError, Permit

logger: logging.Logger = logging.getLogger(__name__)

# Registering more than this for the first time takes long: pages are pinned one by one.
_QUICK_BYTES = 1024 * 1024
_QUICK_ROWS = 64
# How long (seconds) an event loop waits for another thread's call.
_BRIEF = 0.001

# NIXL's status of what is not registered.
_NOT_FOUND = -6

Row = tuple[int, int, int]
"""Address, length in bytes and device number of one region."""


class Registration:
    """One region that is registered with NIXL, and how many need it."""

    __slots__ = ("holders", "mem_type", "owner", "row")

    def __init__(self, row: Row, mem_type: int, owner: Any) -> None:
        self.row: Row = row
        """Exactly as registered."""
        self.mem_type: int = mem_type
        self.owner: Any = owner
        """What keeps the region alive, if that is known: whoever holds this holds the memory."""
        self.holders: int = 0


class Registrations:
    """The registrations of one agent. Safe to call from any thread.

    Two locks. `lock` is held while NIXL registers, deregisters, or builds a request that will refer
    to registrations, so that none of these sees another half done; NIXL serialises them anyway.
    `_maps_lock` guards the maps alone and is never held across a call into NIXL. Both are
    reentrant, since the garbage collector may run a finalizer, and with it anything, in any thread
    that holds them; but what would change them then is refused (see `Keeper.refuse_amid`) or waits
    (see `Keeper.collect`).

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
        self.lock: Gate = Gate()
        self._briefly = self.lock.within(_BRIEF)
        # What nobody holds any more, to be deregistered: rows, by memory type.
        self._idle: dict[int, list[Row]] = {}

    def __len__(self) -> int:
        with self._maps_lock:
            return sum(len(ranges) for maps in self._maps.values() for ranges in maps.values())

    @property
    def registered_bytes(self) -> int:
        """Of all regions together."""
        with self._maps_lock:
            return sum(ranges.nbytes for maps in self._maps.values() for ranges in maps.values())

    @property
    def is_busy(self) -> bool:
        """Whether a call that needs `lock` would have to wait for another thread."""
        return self.lock.is_busy

    def entered(self, permit: Permit) -> AbstractContextManager[None]:
        """Return what takes `lock`, or raises NotQuickError where there is no patience for it.

        Others have it for microseconds, nearly always.
        """
        if permit.patient:
            return self.lock
        if self.lock.is_late:
            raise NotQuickError
        return self._briefly

    @property
    def is_held_here(self) -> bool:
        """Whether this thread is in the middle of something here."""
        owned: bool = self._maps_lock._is_owned()  # type: ignore[attr-defined]
        return owned or self.lock.is_held_here

    def covers(self, regions: Regions, mem_type: int) -> bool:
        """Whether each of these regions is within a registration now."""
        with self._maps_lock:
            return coverings(self._maps.get(mem_type, {}), regions) is not None

    def acquire(
        self,
        regions: Regions,
        mem_type: int,
        held: list[Registration],
        *,
        owners: Sequence[Any] = (),
        patient: bool = True,
    ) -> None:
        """Append to `held` what holds each of these regions, made where there is nothing.

        Release it. (It is not returned: so an exception of a signal handler loses none.)

        An existing registration is shared where NIXL would find it. It looks no further than at the
        neighbours of a region in its list, and so may overlook one that covers it; then the region
        gets a registration of its own, which NIXL does find.

        Parameters
        ----------
        regions, mem_type
            What is needed.
        held : list
            Takes the registrations.
        owners : sequence
            What keeps the first regions alive, or all. New registrations keep it, too: whoever
            shares one may need it for longer than whoever made it.
        patient : bool
            Whether to register what takes long.

        Raises
        ------
        RegistrationError
            NIXL refuses the memory; then none is acquired.
        NotQuickError
            There is much to register, and no patience; then none is acquired.
        """
        made: list[Registration] = []
        with self.lock:
            self._deregister_idle()  # what a signal handler has left: NIXL may not have it twice
            try:
                # What was registered for one row may hide what another one shares.
                while None in (found := self._found(regions, mem_type)):
                    self._make(regions, found, mem_type, made, owners, patient=patient)
                    if len(found) == 1:
                        found = made
                        break
                with self._maps_lock:
                    take(found, held)
            except BaseException:
                self._drop_unheld(made)
                raise

    def _drop_unheld(self, made: list[Registration]) -> None:
        """Deregister what has just been made, unless it is held meanwhile."""
        unheld: list[Registration] = []
        take([known for known in made if not known.holders], unheld)
        self.release(unheld)

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
        owners: Sequence[Any],
        *,
        patient: bool,
    ) -> None:
        """Register the regions for which nothing was found, yet without holders. `lock` held."""
        if len(found) == 1:
            owned, missing = {regions[0]: owners[0] if owners else None}, regions
        else:
            owners = [*owners, *[None] * (len(found) - len(owners))]
            owned = {regions[i]: owners[i] for i, known in enumerate(found) if known is None}
            missing = regions if len(owned) == len(found) else Regions(list(owned))
        rows = list(owned)
        large = self._pins and missing.nbytes > _QUICK_BYTES
        slow = large or len(rows) > _QUICK_ROWS
        if slow and not patient:
            raise NotQuickError
        fresh = [Registration(row, mem_type, owner) for row, owner in owned.items()]
        done: list[bool] = []
        self.lock.is_late = slow
        try:
            self._agent.register(missing, mem_type, done)
            with self._maps_lock:
                put(fresh, self._maps[mem_type], made)
        except NativeError as error:
            raise RegistrationError(
                f"NIXL refused to register {_text(rows, mem_type)}: {status_name(error.status)}"
                + (_NO_DEVICES if mem_type else "")
            ) from None
        finally:
            self.lock.is_late = False
            if done and (not made or made[-1] is not fresh[-1]):
                self._idle.setdefault(mem_type, []).extend(rows)  # interrupted in between
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("registered %s", _text(rows, mem_type))

    def acquire_covering(self, regions: Regions, mem_type: int, held: list[Registration]) -> None:
        """Append to `held` every registration that holds one of these regions. As for `acquire`."""
        with self._maps_lock:
            take(coverings(self._maps.get(mem_type, {}), regions) or [], held)

    def release(self, registrations: list[Registration], owners: list[Any] | None = None) -> None:
        """Give up what was acquired, emptying the list; the last holder deregisters. Never raises.

        But for what a signal handler raises: then somebody else deregisters what is left.

        Parameters
        ----------
        registrations : list of Registration
            What to give up.
        owners : list, optional
            Takes the owners of what is deregistered, for those who hold locks: their memory may
            have finalizers.
        """
        if not registrations:
            return  # without the lock, for which an event loop might have to wait
        if owners is None:
            owners = []
        with self.lock:
            with self._maps_lock:
                give_up(registrations, self._maps, self._idle, owners)
            self._deregister_idle()

    def _deregister_idle(self) -> None:
        """Deregister what nobody holds. `lock` held."""
        while self._idle:
            self._deregister(*next(iter(self._idle.items())))

    def _deregister(self, mem_type: int, rows: list[Row]) -> None:
        try:
            self._agent.deregister(Regions(rows), mem_type, self._idle)
        except (AgentClosedError, AgentForkedError):
            pass  # closing the agent deregistered everything
        except (NativeError, MemoryError) as error:
            self._idle.pop(mem_type, None)
            # Not the error itself, whose frames a log record would keep alive.
            text = str(error) or "out of memory"
            if not isinstance(error, NativeError) or error.status != _NOT_FOUND:
                self._keep(mem_type, rows)
            # Last: what a filter raises comes when all is done.
            logger.warning("NIXL keeps %s registered: %s", _text(rows, mem_type), text)
        else:
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("deregistered %s", _text(rows, mem_type))

    def _keep(self, mem_type: int, rows: list[Row]) -> None:
        """Have who needs these regions share them: NIXL has them, and may not have one twice."""
        kept = [Registration(row, mem_type, None) for row in rows]
        with self._maps_lock:
            put(kept, self._maps.setdefault(mem_type, {}), [])


_NO_DEVICES = (
    ": UCX may not reach this device (nixl-connect doctor tells); HostPool leases with copy_from "
    "and copy_to go by way of the host"
)


def _text(rows: list[Row], mem_type: int) -> str:
    """Name some regions in a message."""
    nbytes = sum(size for _, size, _ in rows)
    start, _, device = rows[0]
    where = f"at {start:#x}" if len(rows) == 1 else f"in {len(rows)} regions from {start:#x}"
    return f"{nbytes} bytes {where} on {'cpu' if mem_type == 0 else f'device {device}'}"

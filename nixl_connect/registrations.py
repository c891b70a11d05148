"""What is registered with one agent: shared, counted, released by the last who needs it."""

from __future__ import annotations

import threading
from collections import defaultdict

from nixl_connect._native.agent import Agent, AgentClosedError, AgentForkedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.packing import Regions
from nixl_connect.device import Device
from nixl_connect.errors import RegistrationError
from nixl_connect.ranges import RangeMap


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

    NIXL is called without the lock, since a first registration can take long. A range that is being
    registered or deregistered is `_busy`, and whoever wants the same range waits for that.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._changed = threading.Condition()
        self._maps: defaultdict[Device, RangeMap[Registration]] = defaultdict(RangeMap)
        self._busy: set[tuple[int, int, Device]] = set()
        self.removals = 0
        """Number of deregistrations so far. See `Engine.transfer`."""
        self.registered_bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._maps.values()))

    def covers(self, start: int, size: int, device: Device) -> bool:
        """Whether a registration holds this region now."""
        with self._changed:
            return next(self._maps[device].covering(start, start + size), None) is not None

    def acquire(self, start: int, size: int, device: Device) -> Registration:
        """Return a registration that holds this region, made if there is none. Release it.

        Raises
        ------
        RegistrationError
            NIXL refuses the memory.
        """
        end = start + size
        busy = (start, end, device)
        with self._changed:
            while True:
                for known in self._maps[device].covering(start, end):
                    known.holders += 1
                    return known
                if busy not in self._busy:
                    break
                self._changed.wait()
            self._busy.add(busy)
        fresh = Registration(start, end, device)
        registered = False
        try:
            self._agent.register(fresh.regions(), device.mem_type)
            registered = True
        except NativeError as error:
            raise RegistrationError(
                f"NIXL refused to register {size} bytes at {start:#x} on {device}: "
                f"{status_name(error.status)}"
            ) from None
        finally:
            with self._changed:
                self._busy.discard(busy)
                if registered:
                    self._maps[device].add(start, end, fresh)
                    self.registered_bytes += size
                self._changed.notify_all()
        return fresh

    def acquire_all(self, start: int, size: int, device: Device) -> list[Registration]:
        """Return every registration that holds this region. Release them."""
        with self._changed:
            covering = list(self._maps[device].covering(start, start + size))
            for known in covering:
                known.holders += 1
            return covering

    def release(self, registration: Registration) -> None:
        """Give up one `acquire`; the last one deregisters. Never raises."""
        busy = (registration.start, registration.end, registration.device)
        with self._changed:
            registration.holders -= 1
            if registration.holders:
                return
            self._maps[registration.device].remove(registration.start, registration.end)
            self.registered_bytes -= registration.end - registration.start
            self.removals += 1
            self._busy.add(busy)
        try:
            self._agent.deregister(registration.regions(), registration.device.mem_type)
        except (AgentClosedError, AgentForkedError):
            pass  # closing the agent deregistered everything
        finally:
            with self._changed:
                self._busy.discard(busy)
                self._changed.notify_all()

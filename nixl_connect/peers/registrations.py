"""What is registered with one agent, and what to say of it."""

from __future__ import annotations

import logging

from nixl_connect._native.agent import Agent
from nixl_connect._native.capi import status_name
from nixl_connect._native.registry import RefusedError, Registry
from nixl_connect.errors import RegistrationError

logger: logging.Logger = logging.getLogger(__name__)

Row = tuple[int, int, int]
"""Address, length in bytes and device number of one region."""

_NO_DEVICES = (
    ": UCX may not reach this device (nixl-connect doctor tells); HostPool leases with copy_from "
    "and copy_to go by way of the host"
)


def registry_of(agent: Agent, *, pins: bool = True) -> Registry:
    """Return the registry of an agent, which logs what happens there.

    Parameters
    ----------
    agent : Agent
        Whose.
    pins : bool
        Whether it may have devices that pin pages, which takes long for many.
    """
    return Registry(agent, _report, pins=pins)


def refusal(error: RefusedError) -> RegistrationError:
    """Return the error of memory that NIXL refuses to register."""
    status, regions = error.args
    return RegistrationError(
        f"NIXL refused to register {_text(*regions)}: {status_name(status)}"
        + (_NO_DEVICES if regions[0] else "")
    )


def _report(what: str, status: int, regions: tuple[int, int, int, Row]) -> None:
    """Log what has happened to some regions."""
    text = _text(*regions)
    if what == "kept":
        logger.warning("NIXL keeps %s registered: %s", text, status_name(status))
    else:
        logger.debug("%s %s", what, text)


def _text(mem_type: int, count: int, nbytes: int, first: Row) -> str:
    """Name some regions in a message."""
    start, _, device = first
    where = f"at {start:#x}" if count == 1 else f"in {count} regions from {start:#x}"
    return f"{nbytes} bytes {where} on {'cpu' if mem_type == 0 else f'device {device}'}"

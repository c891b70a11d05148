"""Reads what a process tells of itself, which may be anything: nothing goes on unless it is sound.

Whoever answers may be of another version, or mean harm. So sizes and depth are bounded, text is
made printable, numbers are those that figures can be made of, and all that is shown must be there.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from nixl_connect.cli.text import printable

# Names of connectors have 512 bytes at most, and paths are the longest of what else there is.
_LONGEST_TEXT = 1024
_DEEPEST = 12
# Digits of 64 bits.
_LONGEST_INTEGER = 20
# More than any clock or rate has, and still a short text.
_MOST = 1e15

_KINDS = ("read", "write", "repeated", "readable", "writable")


def understood(told: bytes) -> dict[str, Any]:
    """Return the snapshot that a process told.

    Raises
    ------
    ValueError
        It is no JSON of what this version shows.
    """
    try:
        told_of = json.loads(told.decode(), parse_constant=_refuse, parse_int=_integer)
        snapshot = _plain(told_of, _DEEPEST)
        _check(snapshot)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    found: dict[str, Any] = snapshot
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise ValueError("an integer of more than 64 bits")
    return int(digits)


def _plain(value: Any, depth: int) -> Any:
    """Return a copy with nothing in it that harms whoever prints or computes with it."""
    if depth == 0:
        raise ValueError("too deep")
    if isinstance(value, str):
        return printable(value[:_LONGEST_TEXT])
    if isinstance(value, dict):
        return {_plain(key, depth): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, float) and not abs(value) <= _MOST:
        raise ValueError(f"{value} is too large")
    return value


def _check(snapshot: Any) -> None:
    """Raise KeyError, TypeError or ValueError unless there is what this version shows."""
    _have(snapshot, int, "pid")
    _have(snapshot, str, "program")
    _have(snapshot, float, "clock")
    for connector in _listed(snapshot, "connectors"):
        _have(connector, int, "id")
        _have(connector, str, "name")
        _check_statistics(connector["stats"])
        for operation in _listed(connector, "operations"):
            _have(operation, int, "number", "nbytes")
            _have(operation, str, "kind", "phase", "peer")
            _have(operation, float, "age")
            if operation["left"] is not None:
                _have(operation, float, "left")
            if operation.get("transfers", 1) != 1:
                _have(operation, int, "transfers_done")
                if operation["transfers"] is not None:
                    _have(operation, int, "transfers")
        for peer in _listed(connector, "peers"):
            _have(peer, str, "name")
            _have(peer, int, "in_flight", "regions")
            _have(peer, float, "idle")


def _check_statistics(stats: Any) -> None:
    _have(stats["operations"], int, "held_bytes", "quarantined_bytes")
    phases = stats["operations"]["phases"]
    _have(phases, int, *phases)
    _have(stats["registrations"], int, "bytes")
    _have(stats["peers"], int, "count", "reloads")
    bounds = _listed(stats, "duration_bounds")
    _have(dict(enumerate(bounds)), float, *range(len(bounds)))
    for kind in {*_KINDS, *stats["ended"]}:
        ended = stats["ended"][kind]
        _have(ended, int, "complete", "cancelled", "errored", "bytes")
        durations = _listed(ended, "durations")
        if len(durations) != len(bounds) + 1:
            raise ValueError(f"{len(durations)} durations, and {len(bounds)} bounds")
        _have(dict(enumerate(durations)), int, *range(len(durations)))


def _have(table: Any, kind: type, *keys: Any) -> None:
    """Raise unless a dict has these, each of a type, and no number negative."""
    if not isinstance(table, dict):
        raise TypeError(f"{type(table).__name__} in the place of an object")
    for key in keys:
        value = table[key]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise TypeError(f"{key}: {type(value).__name__} in the place of {kind.__name__}")
        if isinstance(value, (int, float)) and value < 0:
            raise ValueError(f"{key}: {value}")


def _listed(table: Any, key: str) -> list[Any]:
    """Return a list that is in a dict."""
    if not isinstance(table, dict) or not isinstance(table[key], list):
        raise TypeError(f"{key}: there is no list")
    found: list[Any] = table[key]
    return found

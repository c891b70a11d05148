"""What fetches and pushes have in common: the message, and which of its arrays are moved."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, TypeAlias

from nixl_connect.arrays.given import Given, turned
from nixl_connect.arrays.manifest import Entry, Message
from nixl_connect.checks import count, instance, integer
from nixl_connect.connector import Connector
from nixl_connect.errors import ArgumentError, ArgumentTypeError, PairingError
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.status import OperationKind
from nixl_connect.wire.metadata import RdmaMetadata

Names: TypeAlias = "str | int | Iterable[str | int]"
"""Names of arrays, or of mappings with all that is in them; numbers for a sequence."""

MOST_ARRAYS = 65_536


class Moving:
    """What both directions have in common: the message, and which of its arrays are moved."""

    def __init__(
        self,
        connector: Connector,
        message: Any,
        kind: OperationKind,
        only: Any,
        max_arrays: int,
    ) -> None:
        instance("connector", connector, Connector)
        max_arrays = count("max_arrays", max_arrays)
        self._connector = connector
        self._read = Message.parse(message)
        self._read.check(connector._options.seal, max_arrays)
        self.metadata: RdmaMetadata = self._read.metadata
        if self.metadata.operation_kind != kind:
            done, other = ("fetched", "push") if kind is OperationKind.READ else ("pushed", "fetch")
            raise PairingError(f"arrays: these are not to be {done}; {other} them")
        self.picked: list[Entry] = self._read.entries if only is None else self._pick(only)
        self.descriptors: list[Descriptor] = []
        self.parts: list[tuple[int, int, int]] | None = []

    def _pick(self, only: Any) -> list[Entry]:
        """Return the arrays that a program names, or that are in a mapping that it names.

        In the order in which it names them.
        """
        given = [only] if isinstance(only, str) or hasattr(only, "__index__") else only
        if not isinstance(given, Iterable):
            raise ArgumentTypeError(f"only must be names, not {type(only).__name__}")
        found: dict[str, list[Entry]] = {}
        for name in given:
            if not isinstance(name, str):
                name = str(integer("only: a name", name))  # noqa: PLW2901
            found[name] = []
        if not found:
            raise ArgumentError("only must not be empty; without it everything is moved")
        for entry in self._read.entries:
            name = ""
            for part in entry.path:
                name = f"{name}.{part}" if name else part
                if name in found:
                    found[name].append(entry)
        unknown = [name for name, entries in found.items() if not entries]
        if unknown:
            raise ArgumentError(
                f"only: there is no array {_some(unknown)} among the {len(self._read.entries)}"
            )
        picked = [entry for entries in found.values() for entry in entries]
        return list({id(entry): entry for entry in picked}.values())

    def matched(
        self, given: list[Given], what: str, *, sequence: bool, copy: bool = False
    ) -> list[Given]:
        """Return a program's arrays as those that are moved are ordered.

        Raises ArgumentError unless names, shapes, types and orders agree. With `copy` an array may
        be copied for the latter.
        """
        if sequence and self._read.sequence:
            if len(given) != len(self.picked):
                raise ArgumentError(
                    f"{what} has {len(given)} arrays, but the message {len(self.picked)}"
                )
            ordered = given
        else:
            named = {tuple(it.path): it for it in given}
            missing = [it.name for it in self.picked if tuple(it.path) not in named]
            wanted = {tuple(it.path) for it in self.picked}
            unknown = [it.name for it in given if tuple(it.path) not in wanted]
            if missing or unknown:
                raise ArgumentError(
                    f"{what} must have the arrays of the message, or of only: "
                    f"missing {_some(missing)}, unknown {_some(unknown)}"
                )
            ordered = [named[tuple(it.path)] for it in self.picked]
        for i, (entry, it) in enumerate(zip(self.picked, ordered, strict=True)):
            if copy and entry.order != it.order:
                ordered[i] = it = turned(it, entry.order)  # noqa: PLW2901
            for of, told, here in (
                ("shape", entry.shape, it.shape),
                ("type", entry.type, it.kind),
                ("order", entry.order, it.order),
            ):
                if told != here:
                    raise ArgumentError(
                        f"{what}[{it.name!r:.80}] is of {of} {here!s:.200}, "
                        f"but of {of} {told!s:.200} in the message"
                    )
        return ordered

    def place(self, given: list[Given], what: str) -> None:
        """Have each array moved to or from where it is; what is the same on both sides, once."""
        places: dict[tuple[int, int], Given] = {}
        parts: list[tuple[int, int, int]] = []
        for entry, it in zip(self.picked, given, strict=True):
            if it.descriptor is None:
                continue
            place = (entry.region, entry.offset)
            other = places.setdefault(place, it)
            if other is not it:
                if (other.descriptor.ptr, other.descriptor.size) == (  # type: ignore[union-attr]
                    it.descriptor.ptr,
                    it.descriptor.size,
                ):
                    continue
                raise ArgumentError(
                    f"{what}[{other.name!r:.80}] and {what}[{it.name!r:.80}] have bytes in common "
                    "in the message, so they have to be one array here, too, or only one moved"
                )
            self.descriptors.append(it.descriptor)
            parts.append((*place, it.descriptor.size))
        self._refuse_shared(parts, places, what)
        self._cut(parts)

    def _refuse_shared(
        self, parts: list[tuple[int, int, int]], places: dict[tuple[int, int], Given], what: str
    ) -> None:
        """Raise if two different parts have bytes in common, at the peer or here."""
        for one, other in itertools.pairwise(sorted(parts)):
            if one[0] == other[0] and one[1] + one[2] > other[1]:
                names = [places[part[:2]].name for part in (one, other)]
                raise ArgumentError(
                    f"{what}[{names[0]!r:.80}] and {what}[{names[1]!r:.80}] have bytes in common "
                    "in the message: move one of them (only)"
                )
        here = {(item.ptr, item.device.kind) for item in self.descriptors}
        if len(here) < len(self.descriptors):
            raise ArgumentError(
                f"{what} has one array for two names, which are two arrays in the message"
            )

    def _cut(self, parts: list[tuple[int, int, int]]) -> None:
        """Move these parts; or all, if that is what they are."""
        rows = self._read.rows
        whole = len(parts) == len(rows) and all(
            part == (i, 0, rows[i][1]) for i, part in enumerate(parts)
        )
        self.parts = None if whole else parts

    def nothing(self) -> None:
        """Move a byte that is no array's, where there are none: it completes the operation."""
        self.descriptors = [Descriptor(bytearray(1))]
        self.parts = [(0, 0, 1)]


def _some(names: list[str]) -> str:
    """Return names for an error's text."""
    if not names:
        return "none"
    return ", ".join(f"{name!r:.80}" for name in names[:3]) + (", ..." if len(names) > 3 else "")

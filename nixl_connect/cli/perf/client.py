"""The command ``nixl-connect perf client``: reads and writes of many sizes, timed."""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nixl_connect import Connector, Descriptor, NixlConnectError, RdmaMetadata
from nixl_connect.cli import lanes
from nixl_connect.cli.errors import CommandError, failure
from nixl_connect.cli.perf.common import LONGEST_LINE, Row, pattern, proof, read_key
from nixl_connect.cli.text import format_bytes

if TYPE_CHECKING:
    from typing_extensions import Self

SIZES = tuple(8 << 3 * i for i in range(9))  # to 128 MiB
# Transfers of a size before those that count, and how many of those there are at least.
_WARM, _LEAST = 3, 5


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print it."""
    from nixl_connect.cli import terminal
    from nixl_connect.cli.perf import picture, view

    key = read_key(arguments.key_file)
    plot = picture.plotter(arguments.plot)
    try:
        with (
            lanes.logged() as log,
            Server(arguments.host, arguments.port, arguments.timeout, key) as server,
            Connector(keys=key, timeout=arguments.timeout) as connector,
        ):
            fitting = [size for size in SIZES if size <= server.most]
            sizes = arguments.sizes or fitting or [server.most]
            if max(sizes) > server.most:
                raise CommandError(
                    f"--sizes: {format_bytes(max(sizes))} is more than the server's "
                    f"{format_bytes(server.most)}; start it with a larger --size",
                    status=2,
                )
            both = arguments.direction == "both"
            directions = ("read", "write") if both else (arguments.direction,)
            with terminal.progress("connecting", len(sizes) * len(directions)) as advance:

                def advanced(step: float, text: str) -> None:
                    advance(step, text)
                    if log:
                        log.tell()

                plan = [(direction, size) for direction in directions for size in sizes]
                rows = _measure(server, connector, plan, arguments.seconds, advanced)
            transports = sorted(lanes.used_transports(log.lanes())) if log else []
    except NixlConnectError as error:
        raise failure(error) from None
    if arguments.json:
        view.print_json(rows, arguments.host, arguments.port, transports)
    else:
        view.print_table(rows, transports)
    if plot is not None:
        try:
            plot(rows, arguments.host, transports)
        except CommandError as error:
            error.is_shown = True  # the figures are, and JSON is one document
            raise
    return 0


class Server:
    """The sideband to a server.

    Parameters
    ----------
    host, port
        Where it is.
    timeout : float
        Seconds for each answer.
    key : bytes, optional
        To show to a server that has it.
    """

    def __init__(self, host: str, port: int, timeout: float, key: bytes | None) -> None:
        self._name = f"{host} port {port}"
        try:
            self._socket = socket.create_connection((host, port), timeout=timeout)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CommandError(
                f"{self._name:.80}: {reason}; is a server there? "
                "Start one with: nixl-connect perf server"
            ) from None
        self._file = self._socket.makefile("rb")
        try:
            self._greet(key)
        except BaseException:
            self.__exit__()
            raise

    def _greet(self, key: bytes | None) -> None:
        greeting = self._answer()
        most, challenge = greeting.get("most"), greeting.get("challenge")
        if not isinstance(most, int) or most < 1:
            raise CommandError(f"{self._name}: no server of nixl-connect perf")
        self.most = most
        if challenge is None and key is not None:
            raise CommandError(f"{self._name} has no key: start it with --key-file")
        if challenge is not None and key is None:
            raise CommandError(f"{self._name} has a key: give it with --key-file")
        if challenge is not None and key is not None:
            self._send({"proof": proof(key, str(challenge))})

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, and return the answer.

        Raises
        ------
        CommandError
            The server refuses, is gone, or does not answer in time.
        """
        self._send(request)
        return self._answer()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise CommandError(f"{self._name}: {error.strerror or error}") from None

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._file.readline(LONGEST_LINE)
            answer: Any = json.loads(line) if line else {"error": "gone"}
        except (OSError, ValueError, RecursionError) as error:
            raise CommandError(f"{self._name}: {error}") from None
        if not isinstance(answer, dict):
            raise CommandError(f"{self._name}: no server of nixl-connect perf")
        if "error" in answer:
            raise CommandError(f"{self._name}: {answer['error']}")
        found: dict[str, Any] = answer
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._socket.close()


def _measure(
    server: Server,
    connector: Connector,
    plan: list[tuple[str, int]],
    seconds: float,
    advance: Callable[[float, str], None],
) -> list[Row]:
    """Move bytes of each size in each direction for so many seconds."""
    expected = pattern(max(size for _, size in plan))
    memory = np.zeros_like(expected)
    whole = Descriptor(memory)
    whole.register_memory(connector)
    rows = []
    for direction, size in plan:
        what = f"{direction:5} {format_bytes(size)}"
        advance(0, what)
        told = server.ask(direction=direction, bytes=size).get("metadata")
        metadata = RdmaMetadata.model_validate(told)
        part = whole.slice(0, size)
        if direction == "read":
            memory[:size] = 0
            prepared: Any = connector.prepare_read_blocking(metadata, part)
        else:
            memory[:size] = expected[:size]
            prepared = connector.prepare_write_blocking(part, metadata)
        with prepared:
            prepared.transfer_blocking()
            if direction == "write":
                agrees = server.ask(direction=direction, bytes=size, verify=True).get("agrees")
            else:
                agrees = np.array_equal(memory[:size], expected[:size])
            if not agrees:
                raise CommandError(f"a {direction} of {size} bytes moved other bytes")
            rows.append(_row(direction, size, _times(prepared.transfer_blocking, seconds)))
        advance(1, what)
    return rows


def _times(transfer: Callable[[], None], seconds: float) -> list[float]:
    """Return how long each of some transfers took."""
    for _ in range(_WARM):
        transfer()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < _LEAST:
        began = time.perf_counter()
        transfer()
        times.append(time.perf_counter() - began)
    return times


def _row(direction: str, nbytes: int, times: list[float]) -> Row:
    ordered = sorted(times)
    return Row(
        direction,
        nbytes,
        len(times),
        statistics.median(ordered),
        ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        ordered[0],
        nbytes * len(times) / sum(times),
    )

"""The command ``nixl-connect perf server``: memory for clients to read from and to write to."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import os
import secrets
import signal
from typing import Any

import numpy as np

from nixl_connect import Connector, Descriptor, NixlConnectError, PassiveOperation
from nixl_connect.cli.errors import CommandError, failure
from nixl_connect.cli.perf.common import LONGEST_LINE, is_loopback, pattern, proof, read_key
from nixl_connect.cli.text import format_bytes

# Each has memory of its own to write to.
_MOST_CLIENTS = 4
# So often the whole memory may be in quarantine.
_MOST_LEFT = 8
# A client that asks for nothing for so long (seconds) is gone; no transfer may take longer either.
_SILENCE = 600.0
# Seconds for a client to show that it has the key, and for all to be let go of at the end.
_PATIENCE = 10.0
# What a message that makes no sense raises.
_REFUSED = (ValueError, TypeError, KeyError, RecursionError, NixlConnectError)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    if arguments.host is None:
        arguments.host = "0.0.0.0" if arguments.public else "127.0.0.1"
    if not arguments.public and not is_loopback(arguments.host):
        raise CommandError(
            f"{arguments.host} is reached from other machines: whoever reaches it can have this "
            "process move its test memory. Say --public if that is what you want",
            status=2,
        )
    if not arguments.public:
        # Before UCX is loaded, which listens on every network otherwise.
        os.environ.setdefault("UCX_NET_DEVICES", "lo")
    try:
        asyncio.run(_serve(arguments))
    except KeyboardInterrupt:
        pass  # before it listened
    except NixlConnectError as error:
        raise failure(error) from None
    except MemoryError:
        raise CommandError(f"there are no {format_bytes(arguments.size)} of memory") from None
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    key = read_key(arguments.key_file)
    # What clients leave in the middle of a transfer stays for a while, but not whatever they leave.
    bound = _MOST_LEFT * arguments.size
    async with Connector(keys=key, timeout=_SILENCE, max_quarantine_bytes=bound) as connector:
        source = Descriptor(await asyncio.to_thread(pattern, arguments.size))
        await asyncio.to_thread(source.register_memory, connector)
        clients: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}

        async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            clients[writer] = asyncio.current_task()
            try:
                if len(clients) > _MOST_CLIENTS:
                    _send(writer, {"error": f"there are {_MOST_CLIENTS} clients already"})
                else:
                    await _Client(connector, source, reader, writer).serve(key)
                await writer.drain()
            except (OSError, TimeoutError, asyncio.TimeoutError):
                pass  # it is gone
            finally:
                del clients[writer]
                writer.close()

        try:
            server = await asyncio.start_server(
                welcome, arguments.host, arguments.port, limit=LONGEST_LINE
            )
        except OSError as error:
            raise CommandError(f"cannot listen on {arguments.host}: {error.strerror}") from None
        port = server.sockets[0].getsockname()[1]
        if arguments.json:
            ready = {"host": arguments.host, "port": port, "bytes": arguments.size}
            print(json.dumps({"listening": ready}), flush=True)
        else:
            print(
                f"listening on {arguments.host} port {port}, with {format_bytes(arguments.size)}; "
                "end with Ctrl-C",
                flush=True,
            )
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
        server.close()
        # Before the connector closes, which they use. Hung up on, each ends by itself.
        left = [task for task in clients.values() if task is not None]
        for writer in clients:
            writer.close()
        if left:
            await asyncio.wait(left, timeout=_PATIENCE)


class _Client:
    """One client, and the memory that it reads from and writes to."""

    def __init__(
        self,
        connector: Connector,
        source: Descriptor,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._connector = connector
        self._source = source
        self._reader, self._writer = reader, writer
        self._target: Descriptor | None = None
        self._operation: PassiveOperation | None = None

    async def serve(self, key: bytes | None) -> None:
        """Answer until it is gone; with a key, only if it has it too."""
        challenge = None if key is None else secrets.token_hex(16)
        _send(self._writer, {"most": self._source.size, "challenge": challenge})
        try:
            if key is not None and challenge is not None:
                line = await asyncio.wait_for(self._reader.readline(), _PATIENCE)
                if not _proves(line, proof(key, challenge)):
                    _send(self._writer, {"error": "this server has a key: --key-file"})
                    return
            while line := await asyncio.wait_for(self._reader.readline(), _SILENCE):
                try:
                    answer = await self._answer(json.loads(line))
                except _REFUSED as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                _send(self._writer, answer)
        except ValueError:
            _send(self._writer, {"error": "a message that is too long"})
        finally:
            self._let_go()
            self._target = None

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        direction, size = request["direction"], request["bytes"]
        if direction not in ("read", "write"):
            raise ValueError(f"direction {direction!r}")
        if request.get("verify"):
            return {"agrees": await asyncio.to_thread(self._agrees, size)}
        self._let_go()
        if direction == "read":
            self._operation = await self._connector.create_readable(self._source.slice(0, size))
        else:
            target = await self._cleared(size)
            self._operation = await self._connector.create_writable(target.slice(0, size))
        return {"metadata": self._operation.metadata().model_dump()}

    def _agrees(self, size: int) -> bool:
        """Whether what the client wrote is the pattern."""
        if self._target is None or not 0 < size <= self._target.size:
            raise ValueError("nothing was written")
        expected: Any = self._source._data_ref[:size]
        return bool(np.array_equal(self._target._data_ref[:size], expected))

    async def _cleared(self, size: int) -> Descriptor:
        """Return memory that begins with so many zeros."""
        if not 0 < size <= self._source.size:
            raise ValueError(f"{size} bytes, but there are {self._source.size}")
        if self._target is None or self._target.size < size:
            self._target = None  # and with it its registration
            target = Descriptor(np.zeros(size, np.uint8))
            await asyncio.to_thread(target.register_memory, self._connector)
            self._target = target
        else:
            await asyncio.to_thread(self._target._data_ref[:size].fill, 0)
        return self._target

    def _let_go(self) -> None:
        if self._operation is not None:
            self._operation.cancel()
            self._operation = None


def _proves(line: bytes, expected: str) -> bool:
    """Whether a client's first message shows that it has the key."""
    try:
        return hmac.compare_digest(json.loads(line)["proof"].encode(), expected.encode())
    except (*_REFUSED, AttributeError):
        return False


def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    with contextlib.suppress(RuntimeError):  # closed meanwhile
        writer.write(json.dumps(message).encode() + b"\n")

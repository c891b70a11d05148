"""The demo's side channel: one side's HTTP server on the loopback interface, the other's client.

It carries metadata, durations and hashes, never the data. Both ends know a secret of this run, so
that another program of the machine cannot join in.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

from nixl_connect.cli.demo.side import LocalSide, Moved

_HEADER = "X-Demo-Token"
_LARGEST_MESSAGE = 16 * 1024 * 1024

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpError(Exception):
    """The other side could not do what it was asked; the text is its own."""


class Server:
    """Offers a side over HTTP, on a free port of 127.0.0.1."""

    def __init__(self, side: LocalSide, token: str) -> None:
        self._side = side
        self._token = token
        application = web.Application(client_max_size=_LARGEST_MESSAGE, middlewares=[self._checked])
        application.router.add_post("/lend/{index:[0-9]+}", self._lend)
        application.router.add_post("/move/{index:[0-9]+}", self._move)
        application.router.add_post("/settle/{index:[0-9]+}", self._settle)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> int:
        """Listen, and return the port."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    @web.middleware
    async def _checked(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.headers.get(_HEADER, "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise web.HTTPForbidden(text="not of this run")
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception as error:
            # Told to the client, which ends the run with it.
            return web.Response(text=f"{type(error).__name__}: {error}", status=500)

    async def _lend(self, request: web.Request) -> web.Response:
        return web.json_response(await self._side.lend(_index(request)))

    async def _move(self, request: web.Request) -> web.Response:
        moved = await self._side.move(_index(request), await request.json())
        return web.json_response(moved._asdict())

    async def _settle(self, request: web.Request) -> web.Response:
        return web.json_response({"digest": await self._side.settle(_index(request))})


def _index(request: web.Request) -> int:
    return int(request.match_info["index"])


class RemoteSide:
    """The side behind a `Server`.

    Parameters
    ----------
    port : int
        Where it listens.
    token : str
        The secret of this run.
    timeout : float
        Most seconds for an answer.
    """

    def __init__(self, port: int, token: str, timeout: float) -> None:
        self._timeout = timeout
        self._session = ClientSession(
            f"http://127.0.0.1:{port}",
            headers={_HEADER: token},
            timeout=ClientTimeout(total=timeout),
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def lend(self, index: int) -> dict[str, Any]:
        """Create the passive operation of a transfer, and return its metadata."""
        return await self._ask(f"/lend/{index}")

    async def move(self, index: int, metadata: dict[str, Any]) -> Moved:
        """Run the active operation of a transfer."""
        return Moved(**await self._ask(f"/move/{index}", metadata))

    async def settle(self, index: int) -> str:
        """Await the passive operation; return the digest of the lent memory."""
        digest: str = (await self._ask(f"/settle/{index}"))["digest"]
        return digest

    async def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            async with self._session.post(path, json=body) as response:
                if response.status != 200:
                    raise HttpError(await response.text())
                answer: dict[str, Any] = await response.json()
                return answer
        except asyncio.TimeoutError:  # not the built-in one before Python 3.11
            raise HttpError(
                f"the other process did not answer {path} within {self._timeout:g} seconds"
            ) from None

"""The two processes of the demo: "a" serves, "b" goes through the plan and reports."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from nixl_connect.cli.child import Parent, run
from nixl_connect.cli.demo.plan import Row
from nixl_connect.cli.demo.side import LocalSide, Partner
from nixl_connect.cli.demo.sideband import RemoteSide, Server


def main() -> None:
    """Run one side, as the first message from the parent says."""
    run(functools.partial(work, side_type=LocalSide))


def work(parent: Parent, side_type: type[LocalSide]) -> None:
    """Run one side.

    Parameters
    ----------
    parent : Parent
        Who to report to.
    side_type : type
        What the side is made of: tests put one here that changes bytes.
    """
    config = parent.expect()
    side = side_type(config["side"], config)
    asyncio.run(_serve(parent, side, config) if side.side == "a" else _drive(parent, side, config))


async def _serve(parent: Parent, side: LocalSide, config: dict[str, Any]) -> None:
    library = await side.open()
    server = Server(side, config["token"])
    try:
        parent.report("ready", port=await server.start(), library=library)
        await asyncio.to_thread(parent.receive)  # nothing but the end can come
    finally:
        await server.stop()
        await side.close()


async def _drive(parent: Parent, side: LocalSide, config: dict[str, Any]) -> None:
    await side.open()
    remote = RemoteSide(config["port"], config["token"], config["timeout"])
    sides: dict[str, Partner] = {"a": remote, "b": side}
    indices = iter(range(len(side.operations)))
    try:
        for number, row in enumerate(side.rows):
            seconds, wrong = [], []
            for sizes in row.operations:
                index = next(indices)
                moved, agrees = await _transfer(row, index, sides)
                seconds.append(moved)
                if not agrees:
                    wrong.append(index)
                parent.report("moved", row=number, nbytes=sum(sizes))
            parent.report("row", row=number, seconds=seconds, wrong=wrong)
        parent.report("done")
    finally:
        await remote.close()
        await side.close()


async def _transfer(row: Row, index: int, sides: dict[str, Partner]) -> tuple[float, bool]:
    """Run one transfer; return its duration, and whether source and target have the same hash."""
    metadata = await sides[row.owner].lend(index)
    moved = await sides[row.mover].move(index, metadata)
    digest = await sides[row.owner].settle(index)
    return moved.seconds, moved.digest == digest

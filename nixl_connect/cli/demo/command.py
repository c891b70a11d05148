"""The command ``nixl-connect demo``: runs the two processes, watches them, and shows the result."""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Callable

from nixl_connect.cli.children import Children
from nixl_connect.cli.demo.plan import Row, make_rows
from nixl_connect.cli.demo.result import Result, RowResult
from nixl_connect.cli.errors import ChildError, CommandError, require_extra

# The module that both processes run.
PROCESS = "nixl_connect.cli.demo.process"
# A transfer takes three steps, each with a deadline; beyond that the children have had their say.
_STEPS = 3
_GRACE = 15.0


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and print what was moved."""
    require_extra("aiohttp", "rich")
    from nixl_connect.cli.demo import view

    with view.progress(arguments.size) as advance:
        result = move(arguments.size, arguments.seed, arguments.timeout, advance)
    if arguments.json:
        view.print_json(result)
    elif result.rows:
        view.print_table(result)
    if result.error is not None:
        status = 1 if result.is_installed else 2
        raise CommandError(result.error, status=status, is_shown=arguments.json)
    return 0 if result.ok else 1


def move(size: int, seed: int, timeout: float, advance: Callable[[Row, int], None]) -> Result:
    """Run the two processes to the end of the plan, or to the first error.

    Parameters
    ----------
    size : int
        Bytes to move in total.
    seed : int
        What the content follows from.
    timeout : float
        Longest that a step may take, in seconds.
    advance : callable
        Called with the row and the number of bytes of each operation that is done.
    """
    result = Result(size, seed)
    start = time.perf_counter()
    try:
        with Children() as children:
            _watch(children, result, timeout, advance)
    except ChildError as error:
        result.is_installed = error.kind != "LibraryError"
        result.error = str(error) if result.is_installed else error.reason
    result.elapsed = time.perf_counter() - start
    return result


def _watch(
    children: Children, result: Result, timeout: float, advance: Callable[[Row, int], None]
) -> None:
    config = {
        "size": result.size,
        "seed": result.seed,
        "timeout": timeout,
        # Not among the arguments of the processes, which everybody on the machine can read.
        "key": secrets.token_hex(32),
        "token": secrets.token_hex(16),
    }
    rows = make_rows(result.size)
    patience = _STEPS * timeout + _GRACE
    children.start("a", PROCESS)
    children.start("b", PROCESS)
    children.send("a", side="a", **config)
    while True:
        _, message = children.receive(patience)
        match message["event"]:
            case "ready":
                result.library = message["library"]
                children.send("b", side="b", port=message["port"], **config)
            case "moved":
                row = rows[message["row"]]
                if row.counted:
                    advance(row, message["nbytes"])
            case "row":
                result.rows.append(
                    RowResult(rows[message["row"]], message["seconds"], message["wrong"])
                )
            case "done":
                break
    children.finish(patience)

"""The command ``nixl-connect top``: what the connectors of running processes do, live."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator

from rich.live import Live

from nixl_connect.cli import terminal
from nixl_connect.cli.errors import CommandError
from nixl_connect.cli.top import view
from nixl_connect.cli.top.figures import Figures, figures
from nixl_connect.cli.top.source import Sources

_NOBODY = (
    "{who} tells what its connectors do; start one with NIXL_CONNECT_MONITOR=1 in its "
    "environment, or have it call nixl_connect.monitor.serve()"
)


def run(arguments: argparse.Namespace) -> int:
    """Show what there is, until told to end."""
    sources = Sources(arguments.where)
    if not sources.read() and not sources.silent:
        who = f"nothing at {arguments.where}" if arguments.where else "no process here"
        raise CommandError("; ".join([_NOBODY.format(who=who), *sources.refused]))
    looks = _looks(sources)
    if not arguments.json and sys.stdout.isatty():
        _show(looks, sources, arguments)
        return 0
    # Nobody looks at a page that goes by: one, unless more are asked for.
    count = arguments.count or (None if arguments.json else 1)
    with contextlib.suppress(KeyboardInterrupt):
        next(looks)
        while count is None or count > 0:
            time.sleep(arguments.interval)
            found = next(looks)
            if arguments.json:
                document = view.document(found, sources.silent, arguments.stuck)
                print(json.dumps(document, allow_nan=False), flush=True)
            else:
                terminal.console().print(view.page(found, sources.silent, arguments.stuck))
            count = None if count is None else count - 1
    return 0


def _looks(sources: Sources) -> Iterator[list[Figures]]:
    """Yield the figures of now, compared with those that were yielded before."""
    before = sources.read()
    yield figures([], before)
    while True:
        now = sources.read()
        yield figures(before, now)
        before = now


def _show(looks: Iterator[list[Figures]], sources: Sources, arguments: argparse.Namespace) -> None:
    """Show pages on the whole terminal, until it is enough or ``q`` is pressed."""
    count = arguments.count
    # Else the terminal stays as it is while a page is shown.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with (
        contextlib.suppress(KeyboardInterrupt),
        terminal.keys() as pressed,
        Live(console=terminal.console(), screen=True, auto_refresh=False) as live,
    ):
        while True:
            page = view.page(next(looks), sources.silent, arguments.stuck)
            live.update(page, refresh=True)
            if count is not None:
                count -= 1
            if pressed(arguments.interval) == "q" or count == 0:
                return

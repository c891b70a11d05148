"""The arguments of ``nixl-connect top``."""

from __future__ import annotations

import argparse
from typing import Any

from nixl_connect.cli.errors import require_extra
from nixl_connect.cli.parsing import complete_files, count, seconds, teach

_DESCRIPTION = """\
Show what the connectors of running processes do.

Shows operations by phase, throughput, latency, memory, peers, and operations that are stuck. A
process is shown if NIXL_CONNECT_MONITOR=1 is in its environment, or if it has called
nixl_connect.monitor.serve(): it then opens a local socket, for its user and root.
"""

_EPILOG = """\
examples:
  nixl-connect top                           all processes of this user, until you press q
  nixl-connect top 4711                      one process
  nixl-connect top --json --count 1          for programs: one line, for one second
  nixl-connect top | cat                     one page, as plain text

done/s counts operations of all kinds; "it moves" is what a connector reads and writes, "peers move"
is what peers read from it and write to it, by operations that have ended: not what peers move by
prepared transfers. "half within" and "99% within" are upper bounds for its reads and writes.

exit status: 0 success, also if ended by q or Ctrl-C; 1 no process to show; 2 it cannot run as asked
"""


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = teach(
        commands.add_parser,
        _DESCRIPTION,
        _EPILOG,
        name="top",
        help="watch the connectors of running processes",
    )
    where = parser.add_argument(
        "where",
        nargs="?",
        metavar="WHERE",
        help="a process id, a socket, or a folder of sockets (default: all of this user)",
    )
    complete_files(where)
    parser.add_argument(
        "--interval",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="time between updates (default: 1)",
    )
    parser.add_argument(
        "--count",
        type=count,
        metavar="N",
        help="exit after this many updates (default: never; 1 for plain text into a pipe)",
    )
    parser.add_argument(
        "--stuck",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="list operations that are at least this old (default: 10)",
    )
    parser.add_argument("--json", action="store_true", help="print each update as a line of JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    require_extra("rich")
    from nixl_connect.cli.top import command

    return command.run(arguments)

"""The arguments of ``nixl-connect demo``."""

from __future__ import annotations

import argparse
from typing import Any

from nixl_connect.cli.parsing import seconds, size, teach

SMALLEST = 4096
"""Smallest total, in bytes: the plan needs room for each of its shapes."""

_DESCRIPTION = """\
Move memory between two processes, and verify every byte.

Starts two processes, "a" and "b", that exchange the metadata of operations over HTTP on the
loopback interface and move memory both ways: each reads from the other and writes to the other,
with one descriptor and with many, small and large. The data goes from memory to memory through
NIXL; HTTP carries metadata only.

Each transfer has its own content. Its SHA-256 is computed in the source before the transfer and in
the target after it, and the two must agree. The process that moves the data takes the times, from
begin_read or begin_write to completion; filling, hashing and HTTP are not included. Buffers are
registered once, before the first transfer.
"""

_EPILOG = """\
examples:
  nixl-connect demo                          1 GiB in total
  nixl-connect demo --size 64MiB             a smaller total
  nixl-connect demo --json > result.json     for programs
  UCX_TLS=tcp nixl-connect demo              the same over TCP, as between two machines

exit status: 0 all bytes agree; 1 some differ, a process died or a step took too long; 2 it cannot
run as asked, or something is not installed
"""


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = teach(
        commands.add_parser,
        _DESCRIPTION,
        _EPILOG,
        name="demo",
        help="move memory between two processes and verify every byte",
    )
    parser.add_argument(
        "--size",
        type=_size,
        default="1GiB",
        metavar="SIZE",
        help="bytes to move in total, such as 64MiB (default: 1GiB)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="seed of the generated content, not negative (default: 0)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="longest that any one step may take (default: 60)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from nixl_connect.cli.demo import command

    return command.run(arguments)


def _size(given: str) -> int:
    found = size(given)
    if found < SMALLEST:
        raise argparse.ArgumentTypeError(f"must be at least {SMALLEST} bytes, not {given}")
    return found


def _seed(given: str) -> int:
    if not given.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number that is not negative, not {given!r}")
    return int(given)
